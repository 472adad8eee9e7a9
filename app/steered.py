"""One prompt continued twice from one seed: as the model is, and with edits in place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autointerp.steer_config import SteerConfig, intervention, told
from store.errors import UsageError

if TYPE_CHECKING:
    from autointerp.subject import Subject


@dataclass(frozen=True)
class Steering:
    """A continuation with edits in place, beside the same one without."""

    prompt: str
    edits: tuple[SteerConfig, ...]
    values: tuple[tuple[float, ...], ...]
    """What the edits' strengths are in units of x; empty where an edit takes none."""
    clean: str
    steered: str
    prompt_tokens: tuple[str, ...]
    clean_tokens: tuple[str, ...]
    steered_tokens: tuple[str, ...]
    altered: tuple[bool, ...]
    """Of the prompt's tokens and of those that were written and read: whether an edit changed the activation there."""
    share_of_norm: float | None
    """Mean |x' − x| / |x| where it was changed; None where it was nowhere."""
    n_hook_calls: int
    """Forward passes in which the edits took part."""
    seed: int

    @property
    def told(self) -> str:
        """The edits in words."""
        return "; ".join(map(told, self.edits))


def steered(
    subject: "Subject",
    prompt: str,
    edits: Sequence[SteerConfig],
    *,
    n_tokens: int,
    temperature: float,
    seed: int,
    chat: bool,
) -> Steering:
    """Continue `prompt` with and without `edits`.

    Raises:
        UsageError: no prompt, one that does not fit, an edit that cannot be made, or one that leaves no finite logits.
    """
    if not prompt.strip():
        raise UsageError("there is no prompt: type something to continue")
    lm, tokenizer = subject.lm, subject.lm.tokenizer
    wanted = intervention(edits, subject.sae, subject.units, subject.sink_norm)
    if not all(cfg.causal for cfg in wanted.configs if cfg.when == "input"):
        raise UsageError("causal=False decides by whole texts, and this one is being written: use causal=True")
    ids = tokenizer.chat(prompt) if chat else tokenizer.with_bos(tokenizer.encode(prompt).ids)
    running = wanted.begin()
    with subject.busy:
        clean = lm.generate(ids, n_tokens, temperature, seed)
        with subject.edited(running) as splice:
            written = lm.generate(ids, n_tokens, temperature, seed)
    return Steering(
        prompt=prompt,
        edits=tuple(edits),
        values=tuple(cfg.values for cfg in wanted.configs),
        clean=tokenizer.decode(clean),
        steered=tokenizer.decode(written),
        prompt_tokens=tokenizer.token_texts(ids),
        clean_tokens=tokenizer.token_texts(clean),
        steered_tokens=tokenizer.token_texts(written),
        altered=running.trace.of_sequence(0),
        share_of_norm=running.trace.mean_length,
        n_hook_calls=splice.n_calls,
        seed=seed,
    )
