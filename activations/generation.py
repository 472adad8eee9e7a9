"""Text from a model, token by token: whoever asks may stop at any of them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from activations.reading import left_padded
from store.errors import UsageError

if TYPE_CHECKING:
    from activations.lm import LanguageModel


MIN_TEMPERATURE = 1e-3
"""Below it, the largest logit is all there is: greedy is the word for that."""


class NotFinite(UsageError):
    """The model says nothing any more: what it was steered with is too strong."""


def stream(
    lm: "LanguageModel", ids: Sequence[int], n_tokens: int, temperature: float, seed: int, *, cached: bool = True
) -> Iterator[int]:
    """New ids after `ids`, each as soon as it is there, with every edit in place; up to the model's end of text.

    Args:
        lm: the model.
        ids: of the prompt, at least one.
        n_tokens: new tokens at most.
        temperature: 0 is greedy.
        seed: of the sampling; no other random state is touched.
        cached: keep keys and values; without, every token costs a pass over all before it, and is the same.

    Raises:
        UsageError: prompt and answer do not fit the model's context, or logits are not finite.
    """
    for step in _steps(lm, [list(ids)], n_tokens, temperature, [seed], cached=cached):
        if step[0] is None:
            return
        yield step[0]


def generate_batch(
    lm: "LanguageModel", prompts: Sequence[Sequence[int]], n_tokens: int, temperature: float, seeds: Sequence[int]
) -> list[list[int]]:
    """What `stream` gives for each prompt with its seed, all of them at once.

    Raises:
        UsageError: as `stream`.
    """
    written: list[list[int]] = [[] for _ in prompts]
    for step in _steps(lm, [list(ids) for ids in prompts], n_tokens, temperature, seeds, cached=True):
        for own, new in zip(written, step, strict=True):
            if new is not None:
                own.append(new)
    return written


def _steps(
    lm: "LanguageModel",
    prompts: list[list[int]],
    n_tokens: int,
    temperature: float,
    seeds: Sequence[int],
    *,
    cached: bool,
) -> Iterator[list[int | None]]:
    """The next id of every sequence, None for those that have ended, until all have."""
    for seed in seeds:
        refuse_sampling(n_tokens, temperature, seed)
    refuse_too_long(lm, max(map(len, prompts)), n_tokens)
    random = [torch.Generator().manual_seed(seed) for seed in seeds]
    tokens, real = left_padded(prompts)
    cache, going, unread = None, [True] * len(prompts), tokens
    for n_done in range(n_tokens):
        logits, cache = lm.step(unread if cached else tokens, real, cache if cached else None)
        refuse_not_finite(logits, n_done)
        drawn = [sample_next(row, temperature, own) for row, own in zip(logits, random, strict=True)]
        going = [on and new not in lm.eos_ids for on, new in zip(going, drawn, strict=True)]
        yield [new if on else None for on, new in zip(going, drawn, strict=True)]
        if not any(going):
            return
        unread = torch.tensor(drawn)[:, None]
        tokens = torch.cat([tokens, unread], dim=1)
        real = torch.cat([real, real.new_ones(len(real), 1)], dim=1)


def refuse_sampling(n_tokens: int, temperature: float, seed: int) -> None:
    """Refuse settings that no text can be drawn with.

    Raises:
        UsageError: one of them.
    """
    if n_tokens < 1:
        raise UsageError(f"n_tokens={n_tokens} writes nothing: choose 1 or more")
    if not (temperature == 0 or MIN_TEMPERATURE <= temperature < float("inf")):
        raise UsageError(f"temperature={temperature} is none: choose 0 (greedy), or {MIN_TEMPERATURE} and more")
    if not 0 <= seed < 2**62:
        raise UsageError(f"seed={seed} is out of range: choose 0 to 2**62")


def refuse_too_long(lm: "LanguageModel", n_prompt: int, n_tokens: int) -> None:
    """Refuse what the model's context does not hold.

    Raises:
        UsageError: prompt and answer have too many tokens.
    """
    if n_prompt + n_tokens > lm.n_ctx:
        raise UsageError(
            f"prompt and answer have {n_prompt} + {n_tokens} tokens, the model reads {lm.n_ctx}: shorten one of them"
        )


def refuse_not_finite(logits: Float[Tensor, "batch d_vocab"], n_done: int) -> None:
    """Refuse logits to sample from that are none.

    Raises:
        NotFinite: the largest is not a number, or infinite.
    """
    # The largest of numbers of which one is NaN is NaN.
    if not bool(logits.amax(dim=-1).isfinite().all()):
        raise NotFinite(f"logits are not finite after {n_done} new tokens: what is edited is too strong, choose less")


def sample_next(logits: Float[Tensor, " d_vocab"], temperature: float, generator: torch.Generator) -> int:
    """One id from the softmax at `temperature`; the arg-max at 0."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits.float().cpu() / temperature).softmax(-1), 1, generator=generator))
