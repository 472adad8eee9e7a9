"""Figures of answers against truth; every one takes many resamples at once along leading axes, in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

N_BINS = 10
"""Equal bins of probability in the calibration error."""

Figures = np.ndarray | np.float64
"""Of shape [...]."""


@dataclass(frozen=True)
class Answers:
    """What was true and what was answered; arrays of shape [..., n], the last axis the questions."""

    truth: np.ndarray
    answer: np.ndarray
    probability: np.ndarray | None = None
    """Of yes; None unless every answer has one."""

    def at(self, chosen: np.ndarray) -> "Answers":
        """The questions at `chosen`, of any shape [..., m]."""
        probability = None if self.probability is None else self.probability[chosen]
        return Answers(self.truth[chosen], self.answer[chosen], probability)

    @property
    def ranked(self) -> np.ndarray:
        """What orders the questions from no to yes: the probability, or the answer where there is none."""
        return self.answer if self.probability is None else self.probability


def divided(over: ArrayLike, under: ArrayLike) -> np.ndarray:
    """over / under, NaN where `under` is 0."""
    over, under = np.asarray(over, float), np.asarray(under, float)
    return np.divide(over, under, out=np.full(np.broadcast(over, under).shape, np.nan), where=under != 0)


def _counts(given: Answers) -> tuple[Figures, Figures, Figures, Figures]:
    yes, said = given.truth == 1, given.answer == 1
    tp, fp, fn, tn = (
        np.sum(each, axis=-1, dtype=float) for each in (yes & said, ~yes & said, yes & ~said, ~yes & ~said)
    )
    return tp, fp, fn, tn


def accuracy(given: Answers) -> Figures:
    """Share of answers that equal the truth, whatever numbers these are."""
    return np.mean(given.truth == given.answer, axis=-1)


def recall(given: Answers) -> Figures:
    """Share of the true that was answered yes: the true-positive rate."""
    tp, _, fn, _ = _counts(given)
    return divided(tp, tp + fn)


def fpr(given: Answers) -> Figures:
    """Share of the false that was answered yes."""
    _, fp, _, tn = _counts(given)
    return divided(fp, fp + tn)


def balanced_accuracy(given: Answers) -> Figures:
    """Mean of the shares that are right among the true and among the false."""
    return (recall(given) + 1 - fpr(given)) / 2


def precision(given: Answers) -> Figures:
    """Share of the yeses that are true, at the share of the true among these questions."""
    tp, fp, _, _ = _counts(given)
    return divided(tp, tp + fp)


def f1(given: Answers) -> Figures:
    """Harmonic mean of precision and recall."""
    tp, fp, fn, _ = _counts(given)
    return divided(2 * tp, 2 * tp + fp + fn)


def kappa(given: Answers) -> Figures:
    """Agreement of answer and truth beyond that of their margins. Cohen 1960."""
    tp, fp, fn, tn = _counts(given)
    n = tp + fp + fn + tn
    by_margins = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / n**2
    return divided((tp + tn) / n - by_margins, 1 - by_margins)


def auroc(given: Answers) -> Figures:
    """P(a true one ranks above a false one) + ½ P(they tie): the Mann-Whitney U over n₁ n₀."""
    yes = given.truth == 1
    n_yes = yes.sum(axis=-1).astype(float)
    rank_sum = np.where(yes, rankdata(given.ranked, axis=-1), 0.0).sum(axis=-1)
    return divided(rank_sum - n_yes * (n_yes + 1) / 2, n_yes * (yes.shape[-1] - n_yes))


def auprc(given: Answers) -> Figures:
    """Average precision: the mean, over the true, of the precision among all that rank as high."""
    yes = given.truth == 1
    as_high = rankdata(-given.ranked, method="max", axis=-1)
    true_as_high = rankdata(np.where(yes, -given.ranked, np.inf), method="max", axis=-1)
    n_yes = yes.sum(axis=-1)
    one_sided = (n_yes == 0) | (n_yes == yes.shape[-1])
    return np.where(one_sided, np.nan, divided(np.where(yes, true_as_high / as_high, 0.0).sum(axis=-1), n_yes))


def _pearson(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    # A constant keeps a rounding residue about its mean, which must not pass for variance.
    constant = (np.ptp(left, axis=-1) == 0) | (np.ptp(right, axis=-1) == 0)
    left, right = (each - each.mean(axis=-1, keepdims=True) for each in (left, right))
    scale = np.sqrt((left**2).sum(axis=-1) * (right**2).sum(axis=-1))
    return divided((left * right).sum(axis=-1), np.where(constant, 0.0, scale))


def correlation(given: Answers) -> Figures:
    """Pearson's r of answer and truth."""
    return _pearson(given.truth, given.answer)


def spearman(given: Answers) -> Figures:
    """Pearson's r of their ranks, ties at their mean rank."""
    return _pearson(rankdata(given.truth, axis=-1), rankdata(given.answer, axis=-1))


def brier(given: Answers) -> Figures:
    """Mean squared distance of the probability from the truth."""
    return np.mean((given.truth - given.probability) ** 2, axis=-1)


def ece(given: Answers) -> Figures:
    """Expected calibration error: mean over questions of |share true − mean probability| of their bin of ten."""
    assert given.probability is not None
    bins = np.minimum((given.probability * N_BINS).astype(int), N_BINS - 1)
    gap = given.truth - given.probability
    total = sum(np.abs(np.where(bins == each, gap, 0.0).sum(axis=-1)) for each in range(N_BINS))
    return np.asarray(total) / gap.shape[-1]


def is_binary(values: np.ndarray) -> bool:
    """Whether every value is 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())  # a sixth of the time of np.isin: it is asked often


def _always(given: Answers) -> bool:
    return given.truth.size > 0


def _classes(given: Answers) -> bool:
    return _always(given) and is_binary(given.truth) and is_binary(given.answer)


def _discrete(given: Answers) -> bool:
    return _always(given) and bool((given.answer == np.round(given.answer)).all())


def _ranking(given: Answers) -> bool:
    return _always(given) and is_binary(given.truth)


def _probabilities(given: Answers) -> bool:
    return _ranking(given) and given.probability is not None


@dataclass(frozen=True)
class Metric:
    """A figure, and the answers that it is a figure of."""

    of: Callable[[Answers], Figures]
    """NaN where it is undefined."""
    applies: Callable[[Answers], bool]

    def __call__(self, given: Answers) -> float | None:
        """Of one set of answers; None where it does not apply or is undefined."""
        if not self.applies(given):
            return None
        found = float(self.of(given))
        return None if np.isnan(found) else found


_class, _rank, _any, _prob = (partial(Metric, applies=each) for each in (_classes, _ranking, _always, _probabilities))

METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, _discrete),
    "auprc": _rank(auprc),
    "auroc": _rank(auroc),
    "balanced_accuracy": _class(balanced_accuracy),
    "brier": _prob(brier),
    "correlation": _any(correlation),
    "ece": _prob(ece),
    "f1": _class(f1),
    "fpr": _class(fpr),
    "kappa": _class(kappa),
    "precision": _class(precision),
    "recall": _class(recall),
    "spearman": _any(spearman),
}
"""Every figure by name."""
BY_PROBABILITY = frozenset({"auprc", "auroc", "brier", "ece"})
"""Figures of the probabilities, where answers have them."""
