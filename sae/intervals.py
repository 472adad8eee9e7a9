"""How sure a figure is: percentile bootstrap over whole documents, since tokens of one document are not independent.

Every figure here is a ratio of two sums over documents, Σ_d numerator_d / Σ_d denominator_d; a mean's denominator is a
count. Documents are drawn with replacement (Efron & Tibshirani 1993, chapter 13; of clusters: Field & Welsh 2007).
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

N_RESAMPLES = 2000
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
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)
    below = draws @ denominators
    if not (below > 0).all():
        return None
    low, high = np.quantile((draws @ numerators) / below, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


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
