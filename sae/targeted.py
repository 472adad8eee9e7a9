"""Targeted ablations on pooled activations: TPP and SCR. SAEBench (Karvonen et al. 2025, arXiv:2503.09532); SCR after
SHIFT (Marks et al. 2024, arXiv:2403.19647).

TPP(n) = mean over classes c of [drop of c's probe − mean drop of the other classes' probes] when the n latents that
add most to c's score are ablated. SCR(n) = (A_ablated − A_biased) / (A_clean − A_biased): how much of what a probe lost
to a spurious attribute comes back when the n latents that carry that attribute are ablated.

Where SAEBench 0.6 differs: its probes keep the epoch that was best on the **test texts**, and of SCR's two directions
it reports the one whose biased probe did worse on the **test texts**. Here L2 is chosen inside the training texts and
both directions are reported. It trains on as many negatives as positives; here all negatives, with balanced accuracy,
which has the same scale: a class told with accuracy A can lose A − 0.5, so TPP is also given as a share of that, if it
is 0.05 or more. SCR where A_clean − A_biased is under 0.1 cannot be told. Ablation is to zero, as there; a basis is
ablated to its training mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sae.ablation import Ranking, ablated_scores, rankings
from sae.probe_scores import Told, balanced_accuracies, targets, text_weights, told
from sae.probes import Probe, fit_probe
from sae.probing import PooledTexts, dense_probes
from sae.threads import one_blas_thread

MIN_GAP = 0.1
"""Accuracy that the bias has to cost before SCR can be told: of less, test texts' chance makes any share."""
MIN_POSSIBLE = 0.05
"""Accuracy above chance that probes need before TPP is given as a share of it."""
MIN_CLASSES = 3
"""Of two classes, one's probe is the other's turned round: nothing can be spared."""


@dataclass(frozen=True)
class FittedTPP:
    """What is decided from training texts."""

    probes: tuple[Probe, ...]
    rankings: tuple[Ranking, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class TPPScore:
    """One arm at one number of ablated directions."""

    arm: str
    n: int
    tpp: Told
    own: Told
    """Mean drop of the classes' own probes."""
    other: Told
    """Mean drop of the other classes' probes."""
    of_possible: Told
    """TPP as a share of A − 0.5, all that can be lost; None where that is under `MIN_POSSIBLE`."""


@one_blas_thread
def fit_tpp(
    train: PooledTexts,
    n_classes: int,
    W_dec: Float[np.ndarray, "d_sae d_in"],
    sizes: Sequence[int],
    seed: int,
    n_draws: int,
    *,
    signed: bool = False,
) -> FittedTPP:
    """Class probes and what will be ablated, from training texts only.

    Args:
        train: training texts.
        n_classes: how many labels there are.
        W_dec: decoder rows.
        sizes: how many directions.
        seed: of folds and random choices.
        n_draws: of the random latents.
        signed: whether latents have signs.

    Raises:
        ValueError: fewer than three classes.
    """
    if n_classes < MIN_CLASSES:
        raise ValueError(f"n_classes={n_classes}: TPP compares a class with others, give at least {MIN_CLASSES}")
    probes = dense_probes(train, n_classes, seed)
    weights = np.stack([probe.weight for probe in probes])
    wanted = targets(train.labels, n_classes)
    found = rankings(train, W_dec, wanted, weights, max(sizes), seed, n_draws, signed=signed)
    return FittedTPP(probes, found, tuple(sizes))


def tpp_predictions(fitted: FittedTPP, test: PooledTexts) -> tuple[np.ndarray, dict[tuple[str, int], np.ndarray]]:
    """Scores before `[n_texts, n_classes]`, and by arm and size after `[n_draws, n_ablated, n_texts, n_classes]`.

    No label of `test` is looked at.
    """
    before = np.stack([probe.scores(test.x) for probe in fitted.probes], axis=1)
    after: dict[tuple[str, int], np.ndarray] = {}
    for ranking in fitted.rankings:
        values, directions = ranking.dictionary.values(test), ranking.dictionary.directions
        for n in fitted.sizes:
            after[ranking.arm, n] = np.stack(
                [
                    np.stack([ablated_scores(fitted.probes, before, directions, values, each[:n]) for each in draw])
                    for draw in ranking.draws
                ]
            )
    return before, after


def score_tpp(
    before: np.ndarray,
    after: dict[tuple[str, int], np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
) -> list[TPPScore]:
    """TPP of every arm and size: the only place where test labels are read."""
    n_classes = before.shape[1]
    weights, wanted = text_weights(groups, seed), targets(labels, n_classes)
    clean = balanced_accuracies(weights, before, wanted)
    own = np.eye(n_classes, dtype=bool)
    out = []
    for (arm, n), draws in after.items():
        # [r, ablated, probe], mean over draws
        drops = np.mean(
            [
                np.stack([clean - balanced_accuracies(weights, scores, wanted) for scores in draw], axis=1)
                for draw in draws
            ],
            axis=0,
        )
        hit, spared = drops[:, own].mean(axis=1), drops[:, ~own].mean(axis=1)
        possible = clean.mean(axis=1) - 0.5
        share = np.divide(hit - spared, possible, out=np.full_like(hit, np.nan), where=possible > 0)
        of_possible = told(share) if possible[0] >= MIN_POSSIBLE else Told(None)
        out.append(TPPScore(arm, n, told(hit - spared), told(hit), told(spared), of_possible))
    return out


@dataclass(frozen=True)
class FittedSCR:
    """What is decided from training texts, for one direction."""

    biased: Probe
    """Trained where both attributes agree."""
    clean: Probe
    """Trained on as many texts, the attributes independent."""
    rankings: tuple[Ranking, ...]
    """Of the spurious attribute."""
    sizes: tuple[int, ...]
    first: bool
    """Whether the first attribute is the target and the second the spurious one, or the other way round."""


@dataclass(frozen=True)
class SCRScore:
    """One arm at one number of ablated directions."""

    arm: str
    n: int
    scr: Told
    ablated: Told
    """Balanced accuracy of the biased probe once they are out."""
    biased: Told
    clean: Told


def attributes(labels: np.ndarray) -> np.ndarray:
    """`[n, 2]` boolean: labels 0 to 3 are pairs of attributes, 2 · first + second."""
    return np.stack([labels // 2 == 1, labels % 2 == 1], axis=1)


@one_blas_thread
def fit_scr(
    train: PooledTexts,
    W_dec: Float[np.ndarray, "d_sae d_in"],
    sizes: Sequence[int],
    seed: int,
    n_draws: int,
    *,
    first: bool,
) -> FittedSCR:
    """The biased probe, the clean one, and what will be ablated, from training texts only.

    Args:
        train: training texts; labels are 2 · first attribute + second attribute, all four about as frequent.
        W_dec: decoder rows.
        sizes: how many directions.
        seed: of folds and random choices.
        n_draws: of the random latents.
        first: whether the first attribute is the target.
    """
    both = attributes(train.labels)
    target, spurious = both.T if first else both.T[::-1]
    agree = np.flatnonzero(target == spurious)
    fair = _half_of_each(train.labels, np.random.default_rng(seed))
    biased = fit_probe(train.x[agree], target[agree], train.groups[agree], seed=seed)
    clean = fit_probe(train.x[fair], target[fair], train.groups[fair], seed=seed)
    tell = fit_probe(train.x[fair], spurious[fair], train.groups[fair], seed=seed)
    found = rankings(train, W_dec, spurious[:, None], tell.weight[None], max(sizes), seed, n_draws, either_way=True)
    return FittedSCR(biased, clean, found, tuple(sizes), first)


def scr_predictions(
    fitted: FittedSCR, test: PooledTexts
) -> tuple[np.ndarray, np.ndarray, dict[tuple[str, int], np.ndarray]]:
    """Scores of the biased and the clean probe `[n_texts]`, and by arm and size of the biased one after ablation
    `[n_draws, n_texts]`. No label of `test` is looked at."""
    biased, clean = fitted.biased.scores(test.x), fitted.clean.scores(test.x)
    after: dict[tuple[str, int], np.ndarray] = {}
    for ranking in fitted.rankings:
        values, directions = ranking.dictionary.values(test), ranking.dictionary.directions
        for n in fitted.sizes:
            after[ranking.arm, n] = np.stack(
                [
                    ablated_scores([fitted.biased], biased[:, None], directions, values, order[:n])[:, 0]
                    for (order,) in ranking.draws
                ]
            )
    return biased, clean, after


def score_scr(
    biased: np.ndarray,
    clean: np.ndarray,
    after: dict[tuple[str, int], np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    *,
    first: bool,
) -> list[SCRScore]:
    """SCR of every arm and size: the only place where test labels are read."""
    weights, target = text_weights(groups, seed), attributes(labels)[:, [0 if first else 1]]

    def accuracy(scores: np.ndarray) -> np.ndarray:
        return balanced_accuracies(weights, scores[:, None], target)[:, 0]

    low, high = accuracy(biased), accuracy(clean)
    gap = high - low
    out = []
    for (arm, n), draws in after.items():
        ablated = np.mean([accuracy(scores) for scores in draws], axis=0)
        share = np.divide(ablated - low, gap, out=np.full_like(gap, np.nan), where=gap > 0)
        scr = told(share) if gap[0] >= MIN_GAP else Told(None)
        out.append(SCRScore(arm, n, scr, told(ablated), told(low), told(high)))
    return out


def _half_of_each(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Half of the texts of each label."""
    parts = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.sort(np.concatenate([random.permutation(part)[: len(part) // 2] for part in parts]))
