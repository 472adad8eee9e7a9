"""`LanguageModel`: what the rest of the code asks of a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from activations.hook_point import HookPoint, parse_hook_point
from activations.tokenizer import Tokenizer

Edit = Callable[[Tensor], Tensor]
"""Activations `[batch, pos, d_in]` to activations of the same shape."""


@dataclass
class Splice:
    """What happened while an edit was in place."""

    n_calls: int = 0
    """Forward passes that the edit took part in."""
    n_positions: int = 0
    """Positions it saw, over all those passes."""


class LanguageModel(ABC):
    """A causal language model with hook points. Inputs are right-padded: causal attention never sees the padding."""

    name: str
    device: str
    weights_hash: str
    n_layers: int
    d_model: int
    d_vocab: int
    n_ctx: int
    tokenizer: Tokenizer

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
    def logits(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits, with every edit that is in place."""

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

    @abstractmethod
    def generate(self, ids: Sequence[int], n_tokens: int, temperature: float, seed: int) -> list[int]:
        """Up to `n_tokens` new ids after `ids`, with every edit in place; greedy at temperature 0."""

    @abstractmethod
    def unembedding(self) -> Float[Tensor, "d_model d_vocab"]:
        """The map from a residual direction to logits: final norm at a fixed scale (its gain, and its centring where it
        centres) and then the unembedding. Exact up to the norm's positive per-token scale."""

    @abstractmethod
    def head_outputs(self, hook_point: HookPoint) -> Float[Tensor, "head d_head d_model"] | None:
        """The maps from each head's vector at `hook_point` to the residual stream; None where no heads are there."""

    @contextmanager
    def splice(self, hook_point: HookPoint, edit: Edit, *, keep_first: bool = True) -> Iterator[Splice]:
        """Run `edit` on every position of every forward pass, prefill and cached decoding alike.

        Args:
            hook_point: where.
            edit: `[batch, pos, d_in]` to the same shape.
            keep_first: leave the sequence's first position as it is. It is the attention sink: an edit there
                breaks the model for a reason that has nothing to do with the direction edited.
        """
        seen = Splice()

        def counted(x: Tensor) -> Tensor:
            # A pass over several positions starts a sequence; a pass over one continues it from the cache.
            starts = x.shape[1] > 1 or seen.n_calls == 0
            seen.n_calls += 1
            edited = edit(x).to(x.dtype)
            if keep_first and starts:
                edited = torch.cat([x[:, :1], edited[:, 1:]], dim=1)
            seen.n_positions += x.shape[1] - int(keep_first and starts)
            return edited

        with self.hooked(hook_point, counted):
            yield seen


def sample_next(logits: Float[Tensor, " d_vocab"], temperature: float, generator: torch.Generator) -> int:
    """One id from the softmax at `temperature`; the arg-max at 0."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits.float() / temperature).softmax(-1), 1, generator=generator))
