"""A local probe: how much a text is about the concept, told from the clean model's activations at the hook point.

A logistic probe of the mean activation over a text's normal tokens (`sae.probes`), trained on the concept's texts and
the retained ones, and asked about texts that a model wrote. Its score is told where it stands between texts without the
concept (0) and texts with it (1), each the mean of texts that the probe of their fold was not trained on: a probability
would depend on how strongly the probe was held back more than on the text. How far it is to be believed is its
balanced accuracy on those texts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from autointerp.concept import mean_activations
from autointerp.statistics.intervals import mean_of_shares
from sae.probes import Probe, fit_prepared, out_of_fold, prepare

if TYPE_CHECKING:
    from autointerp.subject import Subject

FEWEST = 4
"""Texts of each side: with fewer no fold is left to train a probe on both."""


class Scale(NamedTuple):
    """A probe, and where its scores stand."""

    probe: Probe
    without: float
    """Mean score of texts without the concept, outside of their folds."""
    with_it: float

    def __call__(self, means: np.ndarray) -> np.ndarray:
        """`[n_texts]`: 0 as texts without the concept, 1 as texts with it.

        Args:
            means: `[n_texts, d_in]` mean activation of each; NaN where a text has no normal token.
        """
        return (self.probe.scores(means) - self.without) / (self.with_it - self.without)


class Probed(NamedTuple):
    """What came of training a probe."""

    scale: Scale | None
    """None where there are too few texts, or it tells texts that it was not trained on no better than backwards."""
    n_with: int
    """Different texts with normal tokens."""
    n_without: int
    balanced_accuracy: float | None = None
    """On texts outside of the folds it was trained on; 0.5 tells nothing."""
    interval: tuple[float, float] | None = None
    """95 %, as if folds were independent."""

    @property
    def told(self) -> dict[str, Any]:
        """What is kept of it in a run's results."""
        return {
            "is_used": self.scale is not None,
            "balanced_accuracy": self.balanced_accuracy,
            "interval": self.interval and list(self.interval),
            "n_with": self.n_with,
            "n_without": self.n_without,
        }


def concept_probe(subject: "Subject", concept: Sequence[str], other: Sequence[str], seed: int) -> Probed:
    """The probe of a concept.

    Args:
        subject: the model.
        concept: texts with it; one that is there twice counts once.
        other: texts without it, none of them among those.
        seed: of the folds.
    """
    means = [mean_activations(subject, sorted(set(texts))) for texts in (concept, other)]
    means = [each[np.isfinite(each).all(axis=1)] for each in means]
    n_with, n_without = map(len, means)
    if min(n_with, n_without) < FEWEST:
        return Probed(None, n_with, n_without)
    wanted = np.repeat([True, False], [n_with, n_without])
    features, groups = prepare(np.concatenate(means)), np.arange(len(wanted))
    probe = fit_prepared(features, wanted, groups, seed)
    said = out_of_fold(features, wanted, groups, seed, probe.strength)
    right = int((said[wanted] > 0).sum()), int((said[~wanted] <= 0).sum())
    low, high = mean_of_shares(right, (n_with, n_without))
    with_it, without = float(said[wanted].mean()), float(said[~wanted].mean())
    return Probed(
        Scale(probe, without, with_it) if with_it > without else None,
        n_with,
        n_without,
        (right[0] / n_with + right[1] / n_without) / 2,
        (float(low), float(high)),
    )
