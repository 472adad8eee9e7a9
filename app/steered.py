"""One prompt continued twice from one seed: as the model is, and with edits in place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, final

from activations.generation import stream
from autointerp.steer_config import SteerEdit, intervention, told
from store.errors import UsageError

if TYPE_CHECKING:
    from autointerp.subject import Subject
    from sae.intervene import Edit

Side = Literal["clean", "steered"]
SIDES: tuple[Side, ...] = ("steered", "clean")
"""In the order in which their tokens are written: whoever steers waits for the steered ones."""


class Token(NamedTuple):
    """A token that one of the two texts got."""

    side: Side
    id: int
    text: str
    """The whole continuation so far: a character of several tokens reads differently until the last of them."""


@dataclass(frozen=True)
class Steering:
    """A continuation with edits in place, beside the same one without."""

    prompt: str
    edits: tuple[SteerEdit, ...]
    values: tuple[tuple[float, ...], ...]
    """What the edits' strengths are in units of x; empty where an edit takes none."""
    clean: str
    steered: str
    prompt_tokens: tuple[str, ...]
    clean_tokens: tuple[str, ...]
    steered_tokens: tuple[str, ...]
    altered: tuple[bool, ...]
    """Of the prompt's tokens and of those that were written and read: whether an edit changed the activation there."""
    touchable: tuple[bool, ...]
    """Of the same tokens: False for the first and for attention sinks, which nothing is done to whatever is asked."""
    shares: tuple[float, ...]
    """|x' − x| / |x| of each token on which x was changed, in their order."""
    share_of_norm: float | None
    """Mean |x' − x| / |x| where it was changed; None where it was nowhere."""
    n_hook_calls: int
    """Forward passes in which the edits took part: every one of the steered text, which is checked."""
    seed: int

    @property
    def told(self) -> str:
        """The edits in words."""
        return "; ".join(map(told, self.edits))


def steps(
    subject: "Subject",
    prompt: str,
    edits: Sequence[SteerEdit],
    *,
    n_tokens: int,
    temperature: float,
    seed: int,
    chat: bool,
    sides: Sequence[Side] = SIDES,
) -> Iterator[Token | Steering]:
    """Continue `prompt` with and without `edits`, token by token, the two texts in turns; the last item is both.

    `sides` says which are written, and which of them first; the other's is empty.

    Edits are in the model only while a token is computed, so that whoever stops, at whatever token, leaves none behind,
    and who asks the same subject in between meets the clean model.

    Raises:
        UsageError: no prompt, one that does not fit, an edit that cannot be made, or one that leaves no finite logits;
            once the first item is asked for.
    """
    if not prompt.strip():
        raise UsageError("there is no prompt: type something to continue")
    lm, tokenizer = subject.lm, subject.lm.tokenizer
    wanted = intervention(edits, subject.sae, subject.units, subject.sink_norm, subject.mean_norm)
    if not all(cfg.causal for cfg in wanted.configs if cfg.when == "input"):
        raise UsageError("causal=False decides by whole texts, and this one is being written: use causal=True")
    ids = tokenizer.chat(prompt) if chat else tokenizer.with_bos(tokenizer.encode(prompt).ids)
    running = wanted.begin()
    clean = _Continuation(subject, "clean", stream(lm, ids, n_tokens, temperature, seed))
    written = _Continuation(subject, "steered", stream(lm, ids, n_tokens, temperature, seed), running)
    yield from _in_turns([{"clean": clean, "steered": written}[side] for side in sides])
    # Each token takes a pass, and so does the end of the text, where it came before the last token asked for.
    n_passes = (len(written.ids) + (len(written.ids) < n_tokens)) * ("steered" in sides)
    if written.n_hook_calls != n_passes:
        # An edit that was left out of a pass, or made twice in one, makes every figure below a lie.
        raise RuntimeError(f"the edit took part in {written.n_hook_calls} passes, and {n_passes} wrote the text")
    yield Steering(
        prompt=prompt,
        edits=tuple(edits),
        values=tuple(cfg.values for cfg in wanted.configs),
        clean=tokenizer.decode(clean.ids),
        steered=tokenizer.decode(written.ids),
        prompt_tokens=tokenizer.token_texts(ids),
        clean_tokens=tokenizer.token_texts(clean.ids),
        steered_tokens=tokenizer.token_texts(written.ids),
        altered=running.trace.of_sequence(0) if "steered" in sides else (),
        touchable=running.trace.of_sequence(0, running.trace.touchable) if "steered" in sides else (),
        shares=running.trace.shares(0) if "steered" in sides else (),
        share_of_norm=running.trace.mean_length,
        n_hook_calls=written.n_hook_calls,
        seed=seed,
    )


def _in_turns(texts: "Sequence[_Continuation]") -> Iterator[Token]:
    """One token of each after the other, each as soon as it is there; those that have ended are left out."""
    going = [iter(each) for each in texts]
    while going:
        for each in tuple(going):
            token = next(each, None)
            if token is None:
                going.remove(each)
            else:
                yield token


@final
class _Continuation:
    """One of the two texts, as far as it is written."""

    def __init__(self, subject: "Subject", side: Side, new: Iterator[int], edit: "Edit | None" = None) -> None:
        self._subject, self._new, self._edit = subject, new, edit
        self._side: Side = side
        self.ids: list[int] = []
        self.n_hook_calls = 0

    def __iter__(self) -> Iterator[Token]:
        while (new := self._next()) is not None:
            self.ids.append(new)
            yield Token(self._side, new, self._subject.lm.tokenizer.decode(self.ids))

    def _next(self) -> int | None:
        if self._edit is None:
            with self._subject.busy:
                return next(self._new, None)
        with self._subject.edited(self._edit) as splice:
            new = next(self._new, None)
        self.n_hook_calls += splice.n_calls
        return new
