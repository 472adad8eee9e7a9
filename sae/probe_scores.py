"""Scores of probes on test texts, each with its bootstrap: whole groups are drawn with replacement, all scores at once.

A score is a function of texts' weights, so one matrix of weights `[1 + n_resamples, n_texts]` gives the figure (first
row: every text once) and its distribution (the others). Differences and ratios of scores that use the same matrix keep
what they share. Efron & Tibshirani 1993, chapter 13; of clusters: Field & Welsh 2007.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sae.intervals import FEWEST_GROUPS, LEVEL

N_RESAMPLES = 1000
MOST_DEFINED = 0.9
"""Share of resamples that must have a value, else there is no interval; those without one lack a class."""


class Told(NamedTuple):
    """A figure and its 95 % interval."""

    value: float | None
    """None where it could not be told."""
    low: float | None = None
    high: float | None = None


def text_weights(groups: Int[np.ndarray, " n"], seed: int, n_resamples: int = N_RESAMPLES) -> Float[np.ndarray, "r n"]:
    """How often each text counts: once in the first row, as often as its group is drawn in the others.

    With fewer than five groups there is no other row: resampling them says nothing.
    """
    _, which = np.unique(groups, return_inverse=True)
    n_groups = int(which.max()) + 1
    if n_groups < FEWEST_GROUPS:
        return np.ones((1, len(groups)))
    draws = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
    return np.concatenate([np.ones((1, len(groups))), draws[:, which].astype(float)])


def told(distribution: Float[np.ndarray, " r"]) -> Told:
    """The figure in the first place, the interval from those of the rest that have a value, if `MOST_DEFINED` have."""
    value, rest = float(distribution[0]), distribution[1:]
    if not np.isfinite(value):
        return Told(None)
    defined = rest[np.isfinite(rest)]
    if len(rest) == 0 or len(defined) < MOST_DEFINED * len(rest):
        return Told(value)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Told(value, float(low), float(high))


def targets(labels: Int[np.ndarray, " n"], n_classes: int) -> np.ndarray:
    """`[n, n_problems]` whether a text is of the class that each probe looks for: one probe for two classes.

    With two classes the one probe looks for the second; with more, each class has its own against the rest.
    """
    return (labels == 1)[:, None] if n_classes == 2 else labels[:, None] == np.arange(n_classes)


def share(weights: Float[np.ndarray, "r n"], hits: np.ndarray, of: np.ndarray) -> np.ndarray:
    """`[r, m]` weighted share of `hits` among `of`, both boolean `[n, m]`; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ (hits & of).astype(float)) / (weights @ of.astype(float))


def balanced_accuracies(weights: Float[np.ndarray, "r n"], scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """`[r, m]` mean of the share right among positives and among negatives, for m probes: chance is 0.5.

    Args:
        weights: of texts.
        scores: `[n, m]`, positive where a probe says yes.
        wanted: `[n, m]` boolean.
    """
    says = scores > 0
    return (share(weights, says, wanted) + share(weights, ~says, ~wanted)) / 2


def accuracies(weights: Float[np.ndarray, "r n"], scores: np.ndarray, labels: Int[np.ndarray, " n"]) -> np.ndarray:
    """`[r]` share of texts whose class is right: the sign of a single probe, the largest of several."""
    says = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)
    return share(weights, (says == labels)[:, None], np.ones((len(labels), 1), bool))[:, 0]


def aurocs(weights: Float[np.ndarray, "r n"], scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """`[r, m]` chance that a positive scores above a negative, ties counting half."""
    return np.stack([_auroc(weights, scores[:, j], wanted[:, j]) for j in range(scores.shape[1])], axis=1)


def _auroc(weights: np.ndarray, scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    positive = np.add.reduceat(weights[:, order] * wanted[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~wanted[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))
