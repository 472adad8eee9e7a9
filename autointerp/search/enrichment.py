"""Whether a latent fires on some matches more often than it fires anyway.

A match of t tokens is a hit if the latent fires on any of them. Were its firings anywhere, at its density d, that had
probability 1 − (1 − d)^t; `expected` is the mean over the n matches. The evidence against that is the
Chernoff–Hoeffding bound on the chance of so many hits, −log2 p ≥ n · KL(share ‖ expected), which holds for matches of
unlike probability with the same mean too (Hoeffding 1963, doi:10.1080/01621459.1963.10500830). It never underflows,
and unlike share or lift it grows with n: 40 of 41 outranks 1 of 1. Matches in one document are not independent draws:
it is for ranking.
"""

from typing import NamedTuple

import numpy as np
from scipy import special, stats

Z95 = 1.959963984540054


class Enrichment(NamedTuple):
    """Of each of some latents, `[n_latents]` each."""

    share: np.ndarray
    """Hits over matches."""
    ci_low: np.ndarray
    """95 % interval of the share (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    ci_high: np.ndarray
    expected: np.ndarray
    """The share at its density."""
    lift: np.ndarray
    """share / expected."""
    bits: np.ndarray
    """Evidence that it fires there more often than elsewhere; 0 where it does not."""
    p: np.ndarray
    """One-sided binomial p-value, times the number of latents that were looked at (Bonferroni); 1 at most."""


def expected_share(density: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """`[n_latents]` mean over matches of `n_tokens` `[n_matches]` tokens of 1 − (1 − d)^t."""
    lengths, counts = np.unique(n_tokens, return_counts=True)
    with np.errstate(divide="ignore"):
        silent = np.log1p(-density)
    hit = np.stack([-np.expm1(t * silent) for t in lengths.tolist()])
    return counts @ hit / counts.sum()


def enrichment(n_hits: np.ndarray, n: np.ndarray | int, expected: np.ndarray, n_latents: int) -> Enrichment:
    """Of latents that hit `n_hits` of `n` matches each, of which `expected` was the share to expect.

    Args:
        n_hits: `[n_found]`, at least 1.
        n: `[n_found]` or one number.
        expected: `[n_found]` within (0, 1].
        n_latents: how many were looked at, those without a hit too.
    """
    share = n_hits / n
    centre, half = (share + Z95**2 / (2 * n)), Z95 * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * np.square(n)))
    scale = 1 + Z95**2 / n
    divergence = special.rel_entr(share, expected) + special.rel_entr(1 - share, 1 - expected)
    bits = np.where(share > expected, n * divergence / np.log(2), 0.0)
    return Enrichment(
        share=share,
        ci_low=np.maximum((centre - half) / scale, 0.0),
        ci_high=np.minimum((centre + half) / scale, 1.0),
        expected=expected,
        lift=share / expected,
        bits=bits,
        p=np.minimum(stats.binom.sf(n_hits - 1, n, expected) * n_latents, 1.0),
    )
