"""What can be asked of a model that is steered along a latent, without loading one; and how strength is found.

Strength is compared by its effect, KL(clean ‖ steered) of the next token, not by its length: Paulo et al. 2024,
arXiv:2410.13928, section 3.4. Equal effects make latents, other latents and random directions comparable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from store.latents import Logit, Window

Text = str | Window
"""A window is read by its own token ids, a text is tokenized."""
Direction = int | np.ndarray
"""A latent's number, standing for its decoder row, or a row `[d_in]` of one's own."""
TOLERANCE = 0.1
"""Share of the wanted KL that the KL found may be off by."""
MAX_STEPS = 40
"""Evaluations of a search."""
FURTHEST = 2.0**12
"""Times the first guess, half the norm of the activations: past it what the model says no longer changes, and the
search ends."""


@dataclass(frozen=True)
class Steered:
    """A continuation under steering."""

    text: str
    """What was written after the prompt, which is not in it."""
    strength: float
    """Multiples of the decoder row that were added."""
    kl: float
    """KL(clean ‖ steered) of the first token after the prompt, in nats."""


@dataclass(frozen=True)
class TokenChange:
    """Which next tokens a clamped latent makes likelier on real contexts, and which less likely."""

    promoted: tuple[Logit, ...]
    """Most promoted first; `value` is the mean change of the logit about the mean change of all."""
    suppressed: tuple[Logit, ...]
    """Most suppressed first."""
    n_positions: int
    """Tokens that the means are over."""


@runtime_checkable
class Steerable(Protocol):
    """The model that an index is of, and its dictionary; `autointerp.subject.Subject` is the real one."""

    alive: np.ndarray
    """Latents that fired on the harvested text, ascending."""

    def peaks(self, latent: int, texts: Sequence[Text]) -> np.ndarray:
        """`[n_texts]` highest activation of a latent in each text."""
        ...

    def fires(self, latent: int, texts: Sequence[Text]) -> np.ndarray:
        """`[n_texts]` whether a latent fires anywhere in each text."""
        ...

    def n_tokens(self, texts: Sequence[Text]) -> list[int]:
        """Length of each text to this model."""
        ...

    def cut(self, text: str, n_tokens: int) -> str:
        """The text's first `n_tokens` tokens."""
        ...

    def random_direction(self, latent: int, seed: int) -> np.ndarray:
        """`[d_in]` a random direction with the norm of the latent's decoder row."""
        ...

    def steer(
        self,
        direction: Direction | Sequence[Direction],
        prompts: Sequence[Text],
        *,
        strength: float | None = None,
        kl: float | None = None,
        n_tokens: int = 16,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Steered | None]:
        """A continuation of each prompt at a strength, or where KL to the clean model is `kl`; None where no strength
        reaches it."""
        ...

    def token_change(self, latent: int, contexts: Sequence[Text], n: int = 10) -> TokenChange:
        """What clamping the latent does to next tokens on real contexts."""
        ...


class Found(NamedTuple):
    """What a search ended with."""

    strengths: np.ndarray
    """`[n]`, NaN where none has the effect."""
    kl: np.ndarray
    """`[n]` as it was evaluated there."""


def strengths_at(
    kl_at: Callable[[np.ndarray, np.ndarray], np.ndarray],
    wanted: float,
    start: np.ndarray,
    tolerance: float = TOLERANCE,
) -> Found:
    """The strength of each entry at which its KL is `wanted` within a share of `tolerance`.

    Bisection, each entry in its own bracket, all that are not done evaluated at once. As KL grows about as strength
    squared, every other step goes where that law would put the wanted KL; it is the bracket that makes it end.

    Args:
        kl_at: strengths and the numbers of the entries they are for, to KLs: 0 at strength 0 and continuous.
        wanted: nats, above 0.
        start: `[n]` first guesses, above 0.
        tolerance: share of `wanted`.
    """
    if not wanted > 0:
        raise ValueError(f"kl={wanted} is not an effect: choose more than 0 nats")
    found = Found(np.full(len(start), np.nan), np.full(len(start), np.nan))
    low, high, now = np.zeros(len(start)), start * FURTHEST * 2, np.array(start, float)
    doing = np.arange(len(start))
    for step in range(MAX_STEPS):
        kl = kl_at(now[doing], doing)
        hit = np.abs(kl - wanted) <= tolerance * wanted
        found.strengths[doing[hit]], found.kl[doing[hit]] = now[doing[hit]], kl[hit]
        # A KL that is not a number is of a model that broke: too much.
        below = kl < wanted
        low[doing[below]], high[doing[~below]] = now[doing[below]], now[doing[~below]]
        going = ~hit & (low[doing] < start[doing] * FURTHEST)
        doing, kl = doing[going], kl[going]
        if not len(doing):
            break
        now[doing] = _next(low[doing], high[doing], now[doing], kl, wanted, by_law=step % 2 == 0)
    return found


def _next(
    low: np.ndarray, high: np.ndarray, now: np.ndarray, kl: np.ndarray, wanted: float, *, by_law: bool
) -> np.ndarray:
    """The middle of the bracket, in logarithms where it is wide; or where KL ∝ strength² puts `wanted`, if inside."""
    middle = np.where(high > 4 * low, np.sqrt(np.maximum(low, high / 1024) * high), (low + high) / 2)
    if not by_law:
        return middle
    with np.errstate(divide="ignore", invalid="ignore"):
        guess = now * np.sqrt(wanted / kl)
    return np.where((guess > low) & (guess < high), guess, middle)
