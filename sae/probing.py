"""Sparse probing: how well k latents, picked on the training texts, tell classes of texts apart. Gurnee et al. 2023,
arXiv:2305.01610; as in SAEBench (Karvonen et al. 2025, arXiv:2503.09532): latents are averaged over a text's tokens,
the k with the largest |mean of class − mean of rest| are kept, and a logistic probe reads those.

Where SAEBench 0.6 differs: it trains on as many negatives as positives (here all negatives, both sides weighing the
same); its probes of all latents and of the activations keep the epoch that was best **on the test texts**; its L2 is
fixed. Here L2 is chosen inside the training texts, and two stages make that visible: `fit` is given training texts
only, `score` is the first to see a test label. Differences are weighed by decoder norms, so that they do not depend on
which of latent and decoder row holds the scale.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sae.probe_scores import Told, accuracies, aurocs, balanced_accuracies, targets, text_weights, told
from sae.probes import Prepared, Probe, Values, fit_prepared, fit_probe, prepare
from sae.threads import one_blas_thread

ALL = 0
"""In place of k: every latent that is active in a training text, or every dimension."""
MAX_WIDE_DRAWS = 3
"""Of shuffled labels on all latents or dimensions, which take long to fit."""
CONTROLS = ("random_latents", "best_neurons", "shuffled_labels", "dense", "dense_shuffled_labels", "majority")
"""Arms beside `sae`."""


class PooledTexts(NamedTuple):
    """Texts as the mean over their tokens."""

    x: Float[np.ndarray, "n d_in"]
    latents: sparse.csr_array
    """`[n, d_sae]`"""
    labels: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]

    def take(self, rows: np.ndarray) -> "PooledTexts":
        """Some of the texts."""
        return PooledTexts(self.x[rows], self.latents[rows], self.labels[rows], self.groups[rows])


@dataclass(frozen=True)
class FittedArm:
    """An arm's probes: for each draw, one probe for two classes, else one for each class."""

    arm: str
    k: int
    """Latents or dimensions a probe reads; `ALL` for all."""
    draws: tuple[tuple[Probe, ...], ...]
    on_latents: bool
    over: str = "draws"
    """What differs between draws: random choices (`draws`), or the training texts and folds (`seeds`)."""


@dataclass(frozen=True)
class Fitted:
    """Everything that is decided before a test text is looked at."""

    n_classes: int
    arms: tuple[FittedArm, ...]


@dataclass(frozen=True)
class ArmScores:
    """An arm's scores on the test texts: means over its draws, with the interval of a single draw over groups of texts.

    A probe of shuffled labels says one class or the other by chance, and may be far from 0.5 either way: it is the
    spread of the draws that a figure has to be outside of.
    """

    arm: str
    k: int
    over: str
    accuracy: Told
    """Share of texts whose class is right."""
    balanced_accuracy: Told
    """Mean over classes of one-vs-rest balanced accuracy: chance is 0.5."""
    auroc: Told
    """Mean over classes."""
    by_draw: tuple[float, ...] = field(default=())
    """Balanced accuracy of each draw."""


@one_blas_thread
def fit(
    train: PooledTexts, n_classes: int, norms: Float[np.ndarray, " d_sae"], ks: Sequence[int], seed: int, n_draws: int
) -> Fitted:
    """All probes of all arms, from training texts only.

    Args:
        train: training texts.
        n_classes: labels are 0 to this.
        norms: of the decoder's rows.
        ks: how many latents.
        seed: of folds and random choices.
        n_draws: of the random controls, and refits on four fifths of the training groups.
    """
    maker = _Maker(train, n_classes, norms, seed)
    arms: list[FittedArm] = []
    for k in ks:
        arms += [
            maker.arm("sae", k, [maker.selected(train, k)]),
            maker.arm("sae", k, [maker.refit(train, k, i) for i in range(n_draws)], over="seeds"),
            maker.arm("random_latents", k, [maker.random(k, i) for i in range(n_draws)]),
            maker.arm("best_neurons", k, [maker.selected(train, k, on_latents=False)], on_latents=False),
            maker.arm("shuffled_labels", k, [maker.selected(maker.shuffled(i), k) for i in range(n_draws)]),
        ]
    mixed = [maker.shuffled(i).labels for i in range(min(n_draws, MAX_WIDE_DRAWS))]
    arms += [
        maker.arm("sae", ALL, [maker.whole(train.labels)]),
        maker.arm("shuffled_labels", ALL, [maker.whole(labels) for labels in mixed]),
        maker.arm("dense", ALL, [maker.whole(train.labels, on_latents=False)], on_latents=False),
        maker.arm(
            "dense_shuffled_labels",
            ALL,
            [*(maker.whole(labels, on_latents=False) for labels in mixed)],
            on_latents=False,
        ),
        maker.arm("majority", ALL, [maker.majority()], on_latents=False),
    ]
    return Fitted(n_classes, tuple(arms))


def predictions(fitted: Fitted, test: PooledTexts) -> list[np.ndarray]:
    """Each arm's scores `[n_draws, n_texts, n_probes]`; no label of `test` is looked at."""
    out = []
    for arm in fitted.arms:
        values: Values = test.latents if arm.on_latents else test.x
        out.append(np.stack([np.stack([probe.scores(values) for probe in draw], axis=1) for draw in arm.draws]))
    return out


def score(
    fitted: Fitted, predicted: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, seed: int
) -> list[ArmScores]:
    """What the predictions are worth: the only place where test labels are read."""
    weights, wanted = text_weights(groups, seed), targets(labels, fitted.n_classes)
    out = []
    for arm, draws in zip(fitted.arms, predicted, strict=True):
        # of refits, the spread over seeds is what is asked for
        some = weights[:1] if arm.over == "seeds" else weights
        balanced = np.stack([balanced_accuracies(some, scores, wanted).mean(axis=1) for scores in draws])
        right = np.stack([accuracies(some, scores, labels) for scores in draws])
        auroc = np.stack([aurocs(some, scores, wanted).mean(axis=1) for scores in draws])
        means = [_over_draws(each) for each in (right, balanced, auroc)]
        out.append(ArmScores(arm.arm, arm.k, arm.over, means[0], means[1], means[2], tuple(balanced[:, 0].tolist())))
    return out


def dense_probes(train: PooledTexts, n_classes: int, seed: int) -> tuple[Probe, ...]:
    """Probes of the activations themselves, one for two classes, else one for each."""
    return _Maker(train, n_classes, np.ones(0), seed).whole(train.labels, on_latents=False)


def mean_difference(values: Values, wanted: np.ndarray) -> Float[np.ndarray, " d"]:
    """Mean over the texts that are wanted minus mean over the others."""
    return _mean(values[wanted]) - _mean(values[~wanted])


def text_counts(latents: sparse.csr_array) -> Int[np.ndarray, " d_sae"]:
    """In how many texts each latent is not 0."""
    entries: Any = latents
    return np.bincount(entries.indices[entries.data != 0], minlength=entries.shape[1])


class _Maker:
    """Makes arms from training texts."""

    def __init__(self, train: PooledTexts, n_classes: int, norms: np.ndarray, seed: int) -> None:
        self.train, self.n_classes, self.norms, self.seed = train, n_classes, norms, seed
        self.live = np.flatnonzero(text_counts(train.latents))

    def arm(
        self, name: str, k: int, draws: list[tuple[Probe, ...]], *, on_latents: bool = True, over: str = "draws"
    ) -> FittedArm:
        return FittedArm(name, k, tuple(draws), on_latents, over)

    def selected(self, texts: PooledTexts, k: int, *, on_latents: bool = True) -> tuple[Probe, ...]:
        """The k of largest class-mean difference."""
        values, norms = (texts.latents, self.norms) if on_latents else (texts.x, 1.0)

        def pick(wanted: np.ndarray) -> np.ndarray:
            difference = np.abs(mean_difference(values, wanted)) * norms
            return np.sort(np.argsort(-difference, kind="stable")[:k])

        return self._probes(texts, values, pick)

    def random(self, k: int, draw: int) -> tuple[Probe, ...]:
        """k latents that are active somewhere, at random for each class."""
        random = np.random.default_rng([self.seed, draw])
        k = min(k, len(self.live))
        return self._probes(
            self.train, self.train.latents, lambda wanted: np.sort(random.choice(self.live, k, replace=False))
        )

    def refit(self, texts: PooledTexts, k: int, draw: int) -> tuple[Probe, ...]:
        """The same on four fifths of the groups, with other folds."""
        random = np.random.default_rng([self.seed, draw])
        names = np.unique(texts.groups)
        kept = random.choice(names, max(len(names) * 4 // 5, 1), replace=False)
        rows = np.flatnonzero(np.isin(texts.groups, kept))
        both = targets(texts.labels[rows], self.n_classes)
        # a class that is in few groups may be left out altogether
        enough = both.any(axis=0).all() and (~both).any(axis=0).all()
        return self.selected(texts.take(rows) if enough else texts, k)

    def shuffled(self, draw: int) -> PooledTexts:
        """The training texts with their labels permuted."""
        random = np.random.default_rng([self.seed, draw])
        return self.train._replace(labels=random.permutation(self.train.labels))

    @cached_property
    def all_latents(self) -> Prepared:
        """Every latent that is active in a training text."""
        return prepare(self.train.latents, self.live)

    @cached_property
    def all_dimensions(self) -> Prepared:
        """Every dimension of the activations."""
        return prepare(self.train.x)

    def whole(self, labels: np.ndarray, *, on_latents: bool = True) -> tuple[Probe, ...]:
        """Probes of all live latents, or of all dimensions."""
        features = self.all_latents if on_latents else self.all_dimensions
        wanted = targets(labels, self.n_classes)
        return tuple(fit_prepared(features, each, self.train.groups, self.seed) for each in wanted.T)

    def majority(self) -> tuple[Probe, ...]:
        """Always the most frequent class."""
        shares = targets(self.train.labels, self.n_classes).mean(axis=0)
        nothing = np.zeros(0, int)
        return tuple(Probe(nothing, np.zeros(0), float(part - 0.5), 0.0) for part in shares)

    def _probes(
        self, texts: PooledTexts, values: Values, columns: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[Probe, ...]:
        wanted = targets(texts.labels, self.n_classes)
        return tuple(fit_probe(values, each, texts.groups, columns(each), self.seed) for each in wanted.T)


def _over_draws(distributions: Float[np.ndarray, "n_draws r"]) -> Told:
    """The mean of the draws, and the interval in which a single one's score lies, texts resampled."""
    return told(np.concatenate([[distributions[:, 0].mean()], distributions[:, 1:].ravel()]))


def _mean(values: Values) -> np.ndarray:
    return np.asarray(values.mean(axis=0, dtype=float)).ravel()
