"""Agreement: of raters, of scorers with each other, and of a judge's probabilities with the truth."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import norm

from autointerp.statistics.intervals import LEVEL, Interval, wilson
from autointerp.statistics.metrics import METRICS, N_BINS, Answers, divided

MIN_PAIRS = 4
"""A correlation of fewer has no standard error: Fisher's is 1 / √(n − 3)."""
WEIGHTS = {"nominal": 0, "linear": 1, "quadratic": 2}
"""Power of the distance between two categories that a disagreement counts by."""


class Agreement(NamedTuple):
    """A coefficient between two columns."""

    value: float | None
    """None where it is undefined: too few pairs, or one side never varies."""
    interval: Interval | None
    """95%."""
    n: int
    """Rows that both have."""


class Bin(NamedTuple):
    """One bin of the calibration curve."""

    low: float
    high: float
    n: int
    mean_probability: float | None
    """None where the bin is empty."""
    share_true: float | None
    interval: Interval | None
    """95% of `share_true`."""


def cohen_kappa(
    left: Sequence[int], right: Sequence[int], weights: Literal["nominal", "linear", "quadratic"] = "nominal"
) -> Agreement:
    """Agreement of two raters beyond that of their margins; for ordered categories, weigh by distance.

    Cohen 1960 and 1968; the interval is by the large-sample standard error of Fleiss, Cohen & Everitt 1969.

    Raises:
        ValueError: the raters have not as many ratings.
    """
    n = len(left)
    if len(right) != n:
        raise ValueError(f"{n} ratings against {len(right)}: give both of each item")
    values, at = np.unique([*left, *right], return_inverse=True)
    if len(values) < 2:
        return Agreement(None, None, n)
    table = np.zeros((len(values), len(values)))
    np.add.at(table, (at[:n], at[n:]), 1 / n)
    distance = np.abs(values[:, None] - values[None]).astype(float)
    agrees = 1 - (distance / distance.max()) ** WEIGHTS[weights] if WEIGHTS[weights] else np.eye(len(values))
    return _weighted(table, agrees, n)


def _weighted(table: np.ndarray, agrees: np.ndarray, n: int) -> Agreement:
    rows, columns = table.sum(1), table.sum(0)
    observed, expected = (table * agrees).sum(), rows @ agrees @ columns
    if np.isclose(expected, 1):
        return Agreement(None, None, n)
    kappa = (observed - expected) / (1 - expected)
    by_row, by_column = agrees @ columns, rows @ agrees
    inner = agrees - (by_row[:, None] + by_column[None]) * (1 - kappa)
    variance = ((table * inner**2).sum() - (kappa - expected * (1 - kappa)) ** 2) / (n * (1 - expected) ** 2)
    if variance < 1e-12:  # all agree, or none: the large-sample error says nothing there
        return Agreement(float(kappa), None, n)
    half = norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance)
    return Agreement(float(kappa), (float(max(-1, kappa - half)), float(min(1, kappa + half))), n)


def correlated(
    left: Sequence[float | None], right: Sequence[float | None], way: Literal["correlation", "spearman"] = "spearman"
) -> Agreement:
    """Correlation of the rows that both have, with Fisher's interval; for ranks, its variance is that of Bonett &
    Wright 2000, (1 + r²/2) / (n − 3)."""
    pairs = np.array([(x, y) for x, y in zip(left, right, strict=True) if x is not None and y is not None], float)
    n = len(pairs)
    if n < MIN_PAIRS or (np.ptp(pairs, axis=0) == 0).any():
        return Agreement(None, None, n)
    r = float(METRICS[way](Answers(pairs[:, 0], pairs[:, 1])) or 0.0)
    if abs(r) >= 1 - 1e-12:
        return Agreement(float(np.sign(r)), None, n)
    widened = 1 + r**2 / 2 if way == "spearman" else 1.0
    half = norm.ppf((1 + LEVEL) / 2) * np.sqrt(widened / (n - 3))
    return Agreement(r, (float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half))), n)


def correlation_matrix(
    columns: Mapping[str, Mapping[int, float | None]], way: Literal["correlation", "spearman"] = "spearman"
) -> dict[tuple[str, str], Agreement]:
    """Of every two scorers (name to latent to value), over the latents that both have scored; each pair once."""
    names = sorted(columns)
    return {
        (one, other): correlated(*_shared(columns[one], columns[other]), way)
        for i, one in enumerate(names)
        for other in names[i + 1 :]
    }


def _shared(
    one: Mapping[int, float | None], other: Mapping[int, float | None]
) -> tuple[list[float | None], list[float | None]]:
    both = sorted(one.keys() & other.keys())
    return [one[latent] for latent in both], [other[latent] for latent in both]


def calibration(truth: Sequence[float], probability: Sequence[float]) -> list[Bin]:
    """Share that is true in ten equal bins of what the judge said; `METRICS["ece"]` is the mean gap of these."""
    true, said = np.array(truth, float), np.array(probability, float)
    at = np.minimum((said * N_BINS).astype(int), N_BINS - 1)
    n = np.bincount(at, minlength=N_BINS)
    means, shares = (divided(np.bincount(at, weights=each, minlength=N_BINS), n) for each in (said, true))
    return [_bin(i, int(n[i]), float(means[i]), float(shares[i])) for i in range(N_BINS)]


def _bin(i: int, n: int, mean: float, share: float) -> Bin:
    low, high = i / N_BINS, (i + 1) / N_BINS
    if n == 0:
        return Bin(low, high, 0, None, None, None)
    ends = wilson(round(share * n), n)
    return Bin(low, high, n, mean, share, (float(ends[0]), float(ends[1])))
