"""How sure a figure is: percentile bootstrap over whole documents, since tokens of one document are not independent.

Every figure here is a ratio of two sums over documents, Σ_d numerator_d / Σ_d denominator_d; a mean's denominator is a
count. Percentiles are widened for few documents (Hesterberg 2015, arXiv:1411.5279, the expanded percentile interval).
Documents are drawn with replacement (Efron & Tibshirani 1993, chapter 13; of clusters: Field & Welsh 2007).
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from scipy import stats

N_RESAMPLES = 2000
DRAWN_AT_ONCE = 4_000_000
"""Counts of drawn groups held at a time."""
LEVEL = 0.95
FEWEST_GROUPS = 5
"""Fewer documents than this give no interval: resampling them says nothing."""


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray, seed: int = 0) -> Interval | None:
    """Of Σ numerators / Σ denominators, over `[n_groups]` independent groups.

    None with fewer than five groups that count, and where resampling leaves nothing to divide by.
    """
    numerators, denominators = np.asarray(numerators, float), np.asarray(denominators, float)
    counts = (denominators != 0) | (numerators != 0)
    numerators, denominators = numerators[counts], denominators[counts]
    n = len(numerators)
    if n < FEWEST_GROUPS:
        return None
    above, below = _resampled(np.stack([numerators, denominators], axis=1), seed).T
    if not (below > 0).all():
        return None
    tail = stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf((1 + LEVEL) / 2, n - 1))
    low, high = np.quantile(above / below, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _resampled(sums: np.ndarray, seed: int) -> np.ndarray:
    """`[N_RESAMPLES, 2]` sums over groups that were drawn with replacement from `[n_groups, 2]`."""
    n, random = len(sums), np.random.default_rng(seed)
    each = max(1, DRAWN_AT_ONCE // n)
    sizes = [min(each, N_RESAMPLES - start) for start in range(0, N_RESAMPLES, each)]
    return np.concatenate([random.multinomial(n, np.full(n, 1 / n), size=size) @ sums for size in sizes])


def mean_interval(values: np.ndarray, seed: int = 0) -> Interval | None:
    """Of the mean of `[n]` independent values, by the bootstrap."""
    return ratio_interval(np.asarray(values, float), np.ones(len(values)), seed)


def seeds_interval(values: np.ndarray) -> Interval | None:
    """Of the mean over a few seeds, by Student's t; None with a single one."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return None
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean() - half), float(values.mean() + half))


class GroupSums:
    """Numerators and denominators of named ratios, summed for each of `n_groups` groups (documents, say)."""

    def __init__(self, n_groups: int) -> None:
        self._sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((2, n_groups)))

    def add(
        self, name: str, groups: np.ndarray, numerators: np.ndarray, denominators: np.ndarray | None = None
    ) -> None:
        """Add `[n]` terms, each to its group; without denominators the ratio is a mean. What is not finite is left out.

        Args:
            name: of the ratio.
            groups: `[n]` the group of each term.
            numerators: `[n]`.
            denominators: `[n]`; ones if not given.
        """
        sums, n_groups = self._sums[name], self._sums[name].shape[1]
        below = np.ones(len(groups)) if denominators is None else denominators
        finite = np.isfinite(numerators) & np.isfinite(below)
        for row, terms in zip(sums, (numerators, below), strict=True):
            row += np.bincount(groups[finite], terms[finite], n_groups)

    def value(self, name: str) -> float | None:
        """The ratio over all groups; None where there is nothing to divide by."""
        above, below = self._sums[name].sum(axis=1)
        return float(above / below) if below > 0 else None

    def interval(self, name: str, seed: int = 0) -> Interval | None:
        """How sure it is: `ratio_interval` over the groups."""
        return ratio_interval(*self._sums[name], seed=seed)

    def n_groups(self, name: str) -> int:
        """Groups that have a term."""
        return int((self._sums[name] != 0).any(axis=0).sum())
