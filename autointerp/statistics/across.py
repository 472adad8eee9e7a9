"""Over many latents: means, paired comparisons, power and many tests at once.

The unit is the latent, or the group of latents that share one explanation. Contexts of one latent share it, and so do
the scores of its explanations by several explainers and scorers: rows are summed by their group first, and what varies
is how groups differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from autointerp.statistics.intervals import LEVEL, Interval

N_PERMUTATIONS = 10_000
BLOCK = 1_000_000
"""Signs drawn at once."""
MIN_CLUSTERS = 2


class Mean(NamedTuple):
    """A mean over rows and how far it would move with other groups of them, such as latents."""

    value: float | None
    """None where nothing has a value."""
    interval: Interval | None
    """95%; None with fewer than two groups."""
    n_groups: int
    n_rows: int
    n_missing: int
    """Rows without a value: not in the mean."""


@dataclass(frozen=True)
class Comparison:
    """How much higher the first of two is on the latents that both have."""

    difference: float | None
    """Mean over latents of first − second; None where no latent has both."""
    interval: Interval | None
    """95%, over groups; None with fewer than two."""
    p_value: float | None
    """Two-sided, of flipping the sign of each group's differences at random; None with fewer than two."""
    n_latents: int
    n_groups: int
    """Of latents that vary together; as many as latents where each stands alone."""
    n_unpaired: int
    """Latents that only one of the two has a value of: left out."""
    spread: float | None
    """Standard deviation of the latents' differences, widened by what groups cost: what `latents_needed` asks for."""


def clustered_mean(values: Sequence[float | None], groups: Sequence[int]) -> Mean:
    """Mean of rows, with an interval that counts groups (a latent's rows, a cluster's latents) rather than rows.

    CR2, the bias-reduced cluster-robust variance of a mean (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018), with
    Satterthwaite's degrees of freedom. With one row a group it is Student's interval.

    Raises:
        ValueError: there are not as many groups as values.
    """
    rows = [(value, group) for value, group in zip(values, groups, strict=True) if value is not None]
    n_missing = len(values) - len(rows)
    if not rows:
        return Mean(None, None, 0, 0, n_missing)
    found = np.array([value for value, _ in rows], float)
    _, cluster = np.unique([group for _, group in rows], return_inverse=True)
    n_groups, mean = int(cluster.max()) + 1, float(found.mean())
    interval = None
    if n_groups >= MIN_CLUSTERS:
        half, _ = _cr2(found, cluster)
        interval = (mean - half, mean + half)
    return Mean(mean, interval, n_groups, len(rows), n_missing)


def _cr2(values: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """Half the interval of the mean of `values`, and its standard error; `cluster` has the place of each one's own."""
    size, n = np.bincount(cluster).astype(float), len(values)
    residual = np.bincount(cluster, weights=values - values.mean())
    # I − H of a cluster has the eigenvalue 1 − size/n along its mean, the one direction that a sum sees.
    variance = (residual**2 / (1 - size / n)).sum() / n**2
    df = _satterthwaite(size)
    return float(t.ppf((1 + LEVEL) / 2, df) * np.sqrt(variance)), float(np.sqrt(variance))


def _satterthwaite(size: np.ndarray) -> float:
    """Degrees of freedom of the variance as a quadratic form in independent rows: k − 1 for k clusters of one size."""
    share = size / size.sum()
    weight = share**2 / (1 - share)
    return float(1 / ((share**2).sum() + weight.sum() ** 2 - (weight**2).sum()))


def compare(
    a: Mapping[int, float | None],
    b: Mapping[int, float | None],
    *,
    groups: Mapping[int, int] | None = None,
    seed: int = 0,
) -> Comparison:
    """How much higher `a` is than `b`, from one value of each latent: two explainers, prompts, judges or dictionaries
    whose latents are paired; or the scores of explanations and those of their null.

    The interval is Student's over the latents' differences, or `clustered_mean`'s where some share a group; the p-value
    is that of `N_PERMUTATIONS` random sign flips of whole groups, or of all where these are fewer, the observed one
    counted (Phipson & Smyth 2010), never zero.

    Args:
        a: by latent.
        b: by latent.
        groups: of latents that vary together, such as by one explanation; a latent in none stands alone.
        seed: of the sign flips.
    """
    both = {latent: (a[latent], b[latent]) for latent in sorted(a.keys() & b.keys())}
    found = {latent: x - y for latent, (x, y) in both.items() if x is not None and y is not None}
    differences = np.array(list(found.values()), float)
    some = {latent for side in (a, b) for latent, value in side.items() if value is not None}
    n, n_unpaired = differences.size, len(some) - differences.size
    mean = float(differences.mean()) if n else None
    cluster = np.unique([(groups or {}).get(latent, latent) for latent in found], return_inverse=True)[1]
    n_groups = len(set(cluster.tolist()))
    if mean is None or n_groups < MIN_CLUSTERS:
        return Comparison(mean, None, None, n, n_groups, n_unpaired, None)
    half, error = _cr2(differences, cluster)
    p_value = sign_flip_p(np.bincount(cluster, weights=differences), seed)
    return Comparison(mean, (mean - half, mean + half), p_value, n, n_groups, n_unpaired, error * n**0.5)


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> float:
    """Two-sided p-value that differences, or their sums by group, shape [n], are as likely to be of either sign."""
    observed = abs(differences.sum()) * (1 - 1e-12)
    n = differences.size
    if 2**n <= N_PERMUTATIONS:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float(np.mean(np.abs(signs @ differences) >= observed))
    random, n_as_far = np.random.default_rng(seed), 0
    for rows in _blocks(N_PERMUTATIONS, max(1, BLOCK // n)):
        signs = random.integers(0, 2, (rows, n), dtype=np.int8) * 2 - 1
        n_as_far += int(np.sum(np.abs(signs @ differences) >= observed))
    return (n_as_far + 1) / (N_PERMUTATIONS + 1)


def _blocks(total: int, most: int) -> list[int]:
    return [min(most, total - start) for start in range(0, total, most)]


def latents_needed(effect: float, spread: float, *, power: float = 0.8, level: float = LEVEL) -> int:
    """Latents in a paired comparison that finds a mean difference of `effect` with the given power.

    By the normal distribution, n = ((z₁₋α⸝₂ + z_power) · spread / effect)², plus z²/2 for the spread being estimated
    (Guenther 1981), rounded up.

    Raises:
        ValueError: the effect is zero, or the power no probability above the error rate.
    """
    if effect == 0 or not 1 - level < power < 1:
        raise ValueError(
            f"effect={effect}, power={power}: choose an effect other than 0 and {1 - level:.2g} < power < 1"
        )
    z = norm.ppf((1 + level) / 2)
    n = ((z + norm.ppf(power)) * spread / effect) ** 2 + z**2 / 2
    return max(MIN_CLUSTERS, int(np.ceil(n)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the chance of any false finding, whatever depends on what. Holm 1979."""
    given = np.array(p_values, float)
    order = np.argsort(given, kind="stable")
    raised = np.maximum.accumulate(given[order] * np.arange(given.size, 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(raised, 1)
    return adjusted.tolist()
