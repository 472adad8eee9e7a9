"""`LanguageModel`: what the rest of the code asks of a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from activations.generation import stream
from activations.hook_point import HookPoint, parse_hook_point
from activations.reading import Reading
from activations.tokenizer import Tokenizer

Edit = Callable[[Tensor], Tensor]
"""Activations `[batch, pos, d_in]` to activations of the same shape."""
SequenceEdit = Callable[[Tensor, Tensor, bool], Tensor]
"""The same, told by `[batch, pos]` bool where they may be touched, and whether sequences go on from the pass before."""
Cache = Any
"""What a model remembers of the positions it has read; whose it is knows what it is."""


@dataclass
class Splice:
    """What happened while an edit was in place."""

    n_calls: int = 0
    """Forward passes that the edit took part in."""
    n_positions: int = 0
    """Positions it may have changed, over all those passes: no padding, and no first position that is kept."""


class LanguageModel(ABC):
    """A causal language model with hook points. Where no padding is named it is on the right, unseen by any text."""

    name: str
    device: str
    weights_hash: str
    n_layers: int
    d_model: int
    d_vocab: int
    n_ctx: int
    eos_ids: frozenset[int]
    """Ids that end a text."""
    tokenizer: Tokenizer
    reading: Reading | None = None
    """Of the pass that is under way; None outside of one, and where all that is read is text from its beginning on."""

    @abstractmethod
    def hook_names(self) -> tuple[str, ...]:
        """Names of all its hook points."""

    def hook_point(self, name: str) -> HookPoint:
        """The hook point called `name`; a UsageError lists the nearest names when there is none."""
        return parse_hook_point(name, self.hook_names())

    @abstractmethod
    def capture(
        self, tokens: Int[Tensor, "batch pos"], hook_points: Sequence[HookPoint]
    ) -> dict[str, Float[Tensor, "batch pos ..."]]:
        """Activations at each hook point, by name, from one forward pass that stops after the deepest."""

    @abstractmethod
    def logits(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits, with every edit that is in place; nothing attends to what is not `real`."""

    @abstractmethod
    def step(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch whole"], cache: Cache = None
    ) -> tuple[Float[Tensor, "batch d_vocab"], Cache]:
        """Logits after the last position, and what to go on from.

        Args:
            tokens: those that were not read yet.
            real: of the whole sequences, padding on the left.
            cache: of the step before; None at the beginning.
        """

    def capture_with_logits(
        self, tokens: Int[Tensor, "batch pos"], hook_point: HookPoint
    ) -> tuple[Float[Tensor, "batch pos ..."], Float[Tensor, "batch pos d_vocab"]]:
        """Activations at a hook point and next-token logits, in one pass where that can be had."""
        x = self.capture(tokens, [hook_point])[hook_point.name]
        return x, self.logits_from(tokens, hook_point, x)

    def logits_from(
        self, tokens: Int[Tensor, "batch pos"], hook_point: HookPoint, x: Float[Tensor, "batch pos ..."]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits with the activations at a hook point replaced by `x`."""
        with self.hooked(hook_point, lambda _: x):
            return self.logits(tokens)

    @abstractmethod
    def hooked(self, hook_point: HookPoint, edit: Edit) -> AbstractContextManager[None]:
        """While the context lasts, `edit` replaces the activations of every forward pass."""

    def generate(self, ids: Sequence[int], n_tokens: int, temperature: float, seed: int) -> list[int]:
        """Up to `n_tokens` new ids after `ids`, with every edit in place; greedy at temperature 0.

        Raises:
            UsageError: they do not fit the context, or an edit left no finite logits.
        """
        return list(stream(self, ids, n_tokens, temperature, seed))

    @contextmanager
    def _pass(self, reading: Reading | None) -> Iterator[None]:
        """While the context lasts, edits are told what is read."""
        self.reading = reading
        try:
            yield
        finally:
            self.reading = None

    @abstractmethod
    def unembedding(self) -> Float[Tensor, "d_model d_vocab"]:
        """The map from a residual direction to logits: final norm at a fixed scale (its gain, and its centring where it
        centres) and then the unembedding. Exact up to the norm's positive per-token scale."""

    @abstractmethod
    def head_outputs(self, hook_point: HookPoint) -> Float[Tensor, "head d_head d_model"] | None:
        """The maps from each head's vector at `hook_point` to the residual stream; None where no heads are there."""

    @contextmanager
    def splice(self, hook_point: HookPoint, edit: SequenceEdit, *, keep_first: bool = True) -> Iterator[Splice]:
        """Run `edit` on every position of every forward pass, prefill and cached decoding alike.

        Args:
            hook_point: where.
            edit: see `SequenceEdit`; what it does where it may not is undone.
            keep_first: leave each sequence's first position as it is. It is the attention sink: an edit there
                breaks the model for a reason that has nothing to do with the direction edited.
        """
        seen = Splice()

        def counted(x: Tensor) -> Tensor:
            reading = (self.reading or Reading.whole(x.shape[0], x.shape[1], x.device)).to(x.device)
            touched = reading.real & ~reading.first if keep_first else reading.real
            seen.n_calls += 1
            seen.n_positions += int(touched.sum())
            edited = edit(x, touched, reading.continues).to(x.dtype)
            return edited.where(touched.reshape(*touched.shape, *[1] * (x.ndim - 2)), x)

        with self.hooked(hook_point, counted):
            yield seen
