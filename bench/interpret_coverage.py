"""How often the 95% intervals of one latent's balanced accuracy hold the truth, over 2,000 simulated latents.

Run from anywhere: `python bench/interpret_coverage.py` (`--quick` to see that it runs); no GPU, a minute or two. Each
latent's judge says yes with known rates to n active and to n silent contexts. The interval that ships stands beside
five others. Where both rates are at an end, few outcomes are possible and no interval can cover 95%: it can only be
above, and the figure asks that none be below.
"""

import argparse
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.stats import bootstrap, norm

from autointerp.statistics import mean_of_shares, wilson
from autointerp.statistics.intervals import Interval
from bench.harness import Figure, main, write

N_LATENTS, N_QUICK = 2000, 100
SIZES = (10, 50)
RATES = {
    "TPR .70, FPR .20": (0.70, 0.20),
    "TPR .50, FPR .50": (0.50, 0.50),
    "TPR .90, FPR .10": (0.90, 0.10),
    "TPR .99, FPR .40": (0.99, 0.40),
    "TPR .97, FPR .03": (0.97, 0.03),
    "TPR .99, FPR .01": (0.99, 0.01),
    "TPR .02, FPR .03": (0.02, 0.03),
}
SPREAD = "rates of each latent drawn evenly from 0 to 1"
Z = float(norm.ppf(0.975))


def hybrid(ends: Callable, k: tuple[int, int], n: int) -> Interval:
    """Newcombe's of a mean of two shares with these intervals of each."""
    shares = [each / n for each in k]
    (low_1, high_1), (low_2, high_2) = (ends(each, n) for each in k)
    middle = sum(shares) / 2
    below = np.hypot(shares[0] - low_1, shares[1] - low_2) / 2
    return middle - below, middle + np.hypot(high_1 - shares[0], high_2 - shares[1]) / 2


def added(extra: float, k: tuple[int, int], n: int) -> Interval:
    """Normal, after adding as many right answers as wrong ones to each side: Agresti & Caffo 2000 with 1."""
    shares = [(each + extra) / (n + 2 * extra) for each in k]
    half = Z * np.sqrt(sum(p * (1 - p) / (n + 2 * extra) for p in shares)) / 2
    return max(0.0, sum(shares) / 2 - half), min(1.0, sum(shares) / 2 + half)


def resampled(method: str, k: tuple[int, int], n: int) -> Interval:
    """Bootstrap within each side; the point alone where no answer differs from another."""
    if all(each in (0, n) for each in k):
        return (sum(k) / n / 2,) * 2
    sides = tuple(np.repeat([1.0, 0.0], [each, n - each]) for each in k)
    found = bootstrap(
        sides,
        lambda a, b, axis: (a.mean(axis=axis) + b.mean(axis=axis)) / 2,
        method=method,
        n_resamples=1000,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


SHIPPED = "shipped (hybrid of Jeffreys)"
WAYS: dict[str, Callable[[tuple[int, int], int], Interval]] = {
    SHIPPED: lambda k, n: mean_of_shares(k, (n, n)),
    "Newcombe (hybrid of Wilson)": lambda k, n: hybrid(wilson, k, n),
    "Agresti-Caffo": lambda k, n: added(1, k, n),
    "normal": lambda k, n: added(0, k, n),
    "bootstrap, percentile": lambda k, n: resampled("percentile", k, n),
    "bootstrap, BCa": lambda k, n: resampled("BCa", k, n),
}


def covered(way: str, rates: np.ndarray, n: int) -> dict[str, float]:
    """Coverage and mean width of one way at rates [n_latents, 2] of being right on either side."""
    interval = lru_cache(None)(lambda k: WAYS[way](k, n))
    said = np.random.default_rng(n).binomial(n, rates)
    ends = np.array([interval((int(a), int(b))) for a, b in said], float)
    truth = rates.mean(axis=1)
    inside = (ends[:, 0] <= truth + 1e-12) & (truth <= ends[:, 1] + 1e-12)
    return {"coverage": float(inside.mean()), "width": float(np.ptp(ends, axis=1).mean())}


def populations(n_latents: int) -> dict[str, np.ndarray]:
    """Shares of right answers among the true and among the false, of every latent."""
    same = {name: np.tile([tpr, 1 - fpr], (n_latents, 1)) for name, (tpr, fpr) in RATES.items()}
    return {**same, SPREAD: np.random.default_rng(0).random((n_latents, 2))}


def measure() -> bool:
    """Every way on every population at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: figures mean nothing")
    args = parser.parse_args()
    n_latents = N_QUICK if args.quick else N_LATENTS
    found = {
        f"{n} + {n}, {name}": {way: covered(way, rates, n) for way in WAYS}
        for n in SIZES
        for name, rates in populations(n_latents).items()
    }
    figures = []
    for name, ways in found.items():
        figures.append(Figure(f"coverage, {name}", ways[SHIPPED]["coverage"], "", ">= 0.93"))
        if any(each in name for each in ("TPR .70", "TPR .50", "TPR .90", SPREAD)):
            figures.append(Figure(f"coverage (from above), {name}", ways[SHIPPED]["coverage"], "", "<= 0.97"))
    for way in WAYS:
        worst = min(ways[way]["coverage"] for ways in found.values())
        figures.append(Figure(f"lowest coverage of {way}", worst, ""))
    return write("interpret_coverage", figures, n_latents=n_latents, quick=args.quick, found=found)


if __name__ == "__main__":
    main(measure)
