"""What can be asked of a model that is steered along a latent, without loading one; and how strength is found.

Strength is compared by its effect, KL(clean ‖ steered) of the next token, not by its length: Paulo et al. 2024,
arXiv:2410.13928, section 3.4. Equal effects make latents, other latents and random directions comparable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from store.latents import Logit, Window

Text = str | Window
"""A window is read by its own token ids, a text is tokenized."""
Direction = int | np.ndarray
"""A latent's number, standing for its decoder row, or a row `[d_in]` of one's own."""
TOLERANCE = 0.1
"""Share of the wanted KL that the KL found may be off by."""
MAX_STEPS = 40
"""Steps of a search, of which the first double the strength until it does too much."""
MAX_DOUBLINGS = 12
"""From half the norm of the activations: past 2000 times it, what the model says no longer changes."""


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


def strengths_at(
    kl_at: Callable[[np.ndarray], np.ndarray], wanted: float, start: np.ndarray, tolerance: float = TOLERANCE
) -> np.ndarray:
    """The strength of each entry at which its KL is `wanted` within a share of `tolerance`; NaN where none was found.

    Doubles from `start` until the KL is too high, then bisects; every entry has its own bracket, all are evaluated at
    once. What comes back is a strength that was evaluated, not one between two that were.

    Args:
        kl_at: `[n]` strengths to `[n]` KLs, 0 at strength 0 and continuous.
        wanted: nats, above 0.
        start: `[n]` first guesses, above 0.
        tolerance: share of `wanted`.
    """
    if not wanted > 0:
        raise ValueError(f"kl={wanted} is not an effect: choose more than 0 nats")
    low, high, now = np.zeros(len(start)), np.full(len(start), np.inf), np.array(start, float)
    found, limit = np.full(len(start), np.nan), start * 2.0**MAX_DOUBLINGS
    for _ in range(MAX_STEPS):
        kl = kl_at(now)
        hit = np.isnan(found) & (np.abs(kl - wanted) <= tolerance * wanted)
        found[hit] = now[hit]
        # A KL that is not finite is of a model that broke: too much.
        below = kl < wanted
        low, high = np.where(below, now, low), np.where(below, high, now)
        if np.all(~np.isnan(found) | (low >= limit)):
            break
        now = np.where(np.isinf(high), np.minimum(2 * now, limit), (low + np.where(np.isinf(high), now, high)) / 2)
    return found
