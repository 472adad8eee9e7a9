"""A local probe: how much a text is about the concept, told from the clean model's activations at the hook point.

Logistic, on the mean activation over a text's normal tokens (`sae.probes`); trained on the concept's texts and the
retained ones, and asked about texts that a model wrote. How far it is to be believed is its balanced accuracy on texts
it was not trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autointerp.concept import mean_activations
from sae.probes import Probe, fit_prepared, out_of_fold, prepare

if TYPE_CHECKING:
    from autointerp.subject import Subject

FEWEST = 4
"""Texts of each side: with fewer, no fold is left to tell how good a probe is."""


@dataclass(frozen=True)
class ConceptProbe:
    """A probe, and what is known of it."""

    probe: Probe
    balanced_accuracy: float
    """On texts outside of the folds it was trained on; 0.5 tells nothing."""
    n_with: int
    n_without: int

    def probability(self, means: np.ndarray) -> np.ndarray:
        """`[n_texts]` that a text is about the concept.

        Args:
            means: `[n_texts, d_in]` mean activation of each; NaN where a text has no normal token.
        """
        from scipy.special import expit

        return expit(self.probe.scores(means))


def concept_probe(subject: "Subject", concept: Sequence[str], other: Sequence[str], seed: int) -> ConceptProbe | None:
    """The probe of a concept; None where there are too few texts to know whether it is any good.

    Args:
        subject: the model.
        concept: texts with it; one that is there twice counts once.
        other: texts without it.
        seed: of the folds.
    """
    sides = [sorted(set(concept)), sorted(set(other) - set(concept))]
    if min(map(len, sides)) < FEWEST:
        return None
    means = np.concatenate([mean_activations(subject, texts) for texts in sides])
    wanted = np.repeat([True, False], [len(texts) for texts in sides])
    known = np.isfinite(means).all(axis=1)
    means, wanted = means[known], wanted[known]
    if min(wanted.sum(), (~wanted).sum()) < FEWEST:
        return None
    features, groups = prepare(means), np.arange(len(wanted))
    probe = fit_prepared(features, wanted, groups, seed)
    says = out_of_fold(features, wanted, groups, seed, probe.strength) > 0
    accuracy = float((says[wanted].mean() + (~says[~wanted]).mean()) / 2)
    return ConceptProbe(probe, accuracy, int(wanted.sum()), int((~wanted).sum()))
