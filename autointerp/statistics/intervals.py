"""Intervals of one latent's figures: closed forms for shares and AUROC, a stratified bootstrap for the rest."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.optimize import root_scalar
from scipy.stats import beta, norm

from autointerp.statistics.metrics import Answers, Metric, auroc, divided, is_binary

LEVEL = 0.95
N_RESAMPLES = 1000
MIN_DEFINED = 0.9
"""No interval where the figure is undefined in more than a tenth of the resamples."""
EDGE = 1e-9
"""Distance from the value at which the search for the end of an AUROC begins."""

Interval = tuple[float, float]
Shares = np.ndarray | np.float64
"""One, or an array of them."""


def wilson(k: Shares | int, n: Shares | int, level: float = LEVEL) -> tuple[Shares, Shares]:
    """Ends of the score interval of a share k / n. Wilson 1927."""
    z = norm.ppf((1 + level) / 2)
    k, n = np.asarray(k, float), np.asarray(n, float)
    middle = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def jeffreys(k: Shares | int, n: Shares | int, level: float = LEVEL) -> tuple[Shares, Shares]:
    """Ends of the Jeffreys interval of a share k / n, out to 0 and 1 where k is 0 or n.

    Brown, Cai & DasGupta 2001.
    """
    k, n = np.asarray(k, float), np.asarray(n, float)
    low, high = (beta.ppf(at, k + 0.5, n - k + 0.5) for at in ((1 - level) / 2, (1 + level) / 2))
    return np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)


def mean_of_shares(
    k: tuple[Shares | int, Shares | int], n: tuple[Shares | int, Shares | int], level: float = LEVEL
) -> tuple[Shares, Shares]:
    """Ends for (k₁/n₁ + k₂/n₂) / 2: the distances of each share to the ends of its own interval, added as squares.

    Newcombe 1998, Statistics in Medicine 17:873, method 10, of a sum, with the ends of Jeffreys in place of Wilson's:
    of six ways the one that covers nearest to 95% at all shares and is not wider (`bench/interpret_coverage.py`).
    """
    shares = [each / of for each, of in zip(k, n, strict=True)]
    ends = [jeffreys(each, of, level) for each, of in zip(k, n, strict=True)]
    middle = (shares[0] + shares[1]) / 2
    below, above = (np.hypot(shares[0] - ends[0][side], shares[1] - ends[1][side]) / 2 for side in (0, 1))
    return middle - below, middle + above


def resampled(given: Answers, n_resamples: int, random: np.random.Generator) -> Answers:
    """Answers of shape [n_resamples, n], drawn with replacement within the true and within the false questions.

    Where the truth is no yes or no, within all of them.
    """
    strata = [np.arange(given.truth.size)]
    if is_binary(given.truth):
        strata = [np.flatnonzero(given.truth == value) for value in (0, 1)]
    drawn = [
        stratum[random.integers(stratum.size, size=(n_resamples, stratum.size))] for stratum in strata if len(stratum)
    ]
    return given.at(np.concatenate(drawn, axis=1))


def bootstrapped(metric: Metric, given: Answers, seed: int) -> Interval | None:
    """Percentile bootstrap; None where the figure is undefined in too many resamples."""
    figures = np.asarray(metric.of(resampled(given, N_RESAMPLES, np.random.default_rng(seed))))
    defined = figures[~np.isnan(figures)]
    if defined.size < MIN_DEFINED * N_RESAMPLES:
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _pair(ends: tuple[Shares, Shares]) -> Interval:
    return float(ends[0]), float(ends[1])


@lru_cache(maxsize=4096)
def _mean_of_shares(k: tuple[int, int], n: tuple[int, int]) -> Interval:
    """Of a hundred thousand latents, each judged on as many contexts, most have the counts of another."""
    return _pair(mean_of_shares(k, n))


def _balanced_accuracy(given: Answers) -> Interval:
    right, yes = given.truth == given.answer, given.truth == 1
    k = (int(np.sum(right & yes)), int(np.sum(right & ~yes)))
    return _mean_of_shares(k, (int(np.sum(yes)), int(np.sum(~yes))))


def _share(
    right: Callable[[Answers], np.ndarray], among: Callable[[Answers], np.ndarray]
) -> Callable[[Answers], Interval]:
    def interval(given: Answers) -> Interval:
        of = among(given)
        return _pair(wilson(int(np.sum(right(given) & of)), int(np.sum(of))))

    return interval


def _auroc(given: Answers) -> Interval:
    """Of those AUROCs that are within 1.96 of their own standard errors of the one seen.

    Newcombe 2006, Statistics in Medicine 25:559, method 5. A bootstrap has no width where all are in order: of ten and
    ten with a true AUROC of .97 it covers 68%, this 97% (500 simulated latents, normal scores).
    """
    n_yes = int(np.sum(given.truth == 1))
    n_no, value = given.truth.size - n_yes, float(auroc(given))
    low, high = _lower_auroc(value, n_yes, n_no), 1 - _lower_auroc(1 - value, n_yes, n_no)
    return low, high


def _lower_auroc(value: float, n_yes: int, n_no: int) -> float:
    z, extra = norm.ppf((1 + LEVEL) / 2), (n_yes + n_no) / 2 - 1

    def beyond(at: float) -> float:
        # Hanley & McNeil 1982, both sides' numbers replaced by their mean
        variance = at * (1 - at) * (1 + extra * (1 - at) / (2 - at) + extra * at / (1 + at)) / (n_yes * n_no)
        return float(value - at - z * np.sqrt(variance))

    below = value - EDGE  # at 1 itself the variance is 0, and so is the distance
    return float(root_scalar(beyond, bracket=(0.0, below)).root) if below > 0 and beyond(below) < 0 else max(0.0, below)


CLOSED: dict[str, Callable[[Answers], Interval]] = {
    "accuracy": _share(lambda a: a.truth == a.answer, lambda a: np.ones_like(a.truth, bool)),
    "auroc": _auroc,
    "balanced_accuracy": _balanced_accuracy,
    "fpr": _share(lambda a: a.answer == 1, lambda a: a.truth == 0),
    "precision": _share(lambda a: a.truth == 1, lambda a: a.answer == 1),
    "recall": _share(lambda a: a.answer == 1, lambda a: a.truth == 1),
}
"""Intervals that need no resampling; those of other metrics are bootstrapped."""


def precision_at_base_rate(tpr: float, fpr: float, base_rate: float) -> float | None:
    """P(it fires | the judge says so) where it fires in `base_rate` of all windows; None where no yes is to be had."""
    hits, alarms = tpr * base_rate, fpr * (1 - base_rate)
    return hits / (hits + alarms) if hits + alarms > 0 else None


def precision_interval(yes: tuple[int, int], no: tuple[int, int], base_rate: float) -> Interval:
    """95% of the precision at `base_rate`, from (said yes, of how many) among the true and among the false."""
    low, high = _ratio(no, yes)
    odds = (1 - base_rate) / base_rate if base_rate > 0 else np.inf
    # No odds times no false alarms would be no number; without alarms the precision may be 1 at any rate.
    return float(1 / (1 + odds * high)) if high < np.inf else 0.0, float(1 / (1 + odds * low)) if low > 0 else 1.0


def _ratio(over: tuple[int, int], under: tuple[int, int]) -> Interval:
    """Ends of one share over another from both Wilson intervals: MOVER-R, Donner & Zou 2012."""
    (low_p, high_p), (low_q, high_q) = wilson(*over), wilson(*under)
    p, q = over[0] / over[1], under[0] / under[1]

    def end(sign: int, at: Shares, by: Shares) -> float:
        root = np.sqrt(max(0.0, (p * q) ** 2 - at * by * (2 * p - at) * (2 * q - by)))
        return float(divided(p * q + sign * root, by * (2 * q - by)))

    return max(0.0, end(-1, low_p, high_q)), end(1, high_p, low_q) if under[0] else float("inf")
