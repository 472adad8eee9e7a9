"""Targeted ablations: does taking a class's latents out hurt that class alone (TPP), or undo a spurious cue (SCR)?

TPP is over data sets of three classes or more. SCR needs two attributes of one text that have nothing to do with each
other; the labelled texts here have one each, so a second is made: half of the texts are read in lower case without
punctuation. That is an artificial cue, and it makes SCR possible on any data set that is written with capitals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from activations.labelled import FORMS
from activations.progress import Progress, no_progress
from app.evaluation.pooled import PooledSet, TextsConfig, pooled_set
from app.evaluation.subject import Subject
from app.evaluation.withheld import of_groups
from sae.ablation import Ranking
from sae.itda import ITDA
from sae.probe_scores import Told
from sae.targeted import (
    MIN_CLASSES,
    MIN_GAP,
    MIN_POSSIBLE,
    SCRScore,
    TPPScore,
    fit_scr,
    fit_tpp,
    score_scr,
    score_tpp,
    scr_predictions,
    tpp_predictions,
)
from store.errors import UsageError
from store.figures import Curve, Figure, Measured

TPP_PLOT, SCR_PLOT = "tpp", "scr"
Counts = dict[tuple[str, int], float]
"""How many directions were ablated, by arm and by how many were asked for."""
S = TypeVar("S", TPPScore, SCRScore)


@dataclass(frozen=True, kw_only=True)
class TargetedConfig(TextsConfig):
    """Which texts, and how many latents are ablated."""

    datasets: tuple[str, ...] = ("topics",)
    """For TPP: data sets or files, as for probing, of at least three classes."""
    scr_datasets: tuple[str, ...] = ("kinds",)
    """For SCR: data sets or files whose first two classes are crossed with letter case."""
    sizes: tuple[int, ...] = (2, 5, 10, 20, 50, 100)
    """Latents ablated."""
    n_draws: int = 3
    """Seeds of the random latents."""
    seed: int = 0
    """Of folds, random choices and intervals."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.datasets and not self.scr_datasets:
            raise UsageError("datasets and scr_datasets are both empty: name at least one, such as topics")
        if not self.sizes or min(self.sizes) < 1:
            raise UsageError(f"sizes={self.sizes}: ablate at least 1 latent")
        if self.n_draws < 1:
            raise UsageError(f"n_draws={self.n_draws}: the controls need at least 1 draw")

    @classmethod
    def quick(cls) -> "TargetedConfig":
        """Fewer and shorter texts, fewer sizes."""
        return cls(sizes=(2, 10, 50), n_train=200, n_test=150, max_tokens=32)


def measure_targeted(cfg: TargetedConfig, subject: Subject, progress: Progress = no_progress) -> Measured:
    """TPP and SCR by data set and number of ablated latents.

    Raises:
        UsageError: a data set that is not there or has too few texts of a label, or one for SCR in lower case.
    """
    figures: list[Figure] = []
    curves: list[Curve] = []
    W_dec = subject.sae.W_dec.detach().double().cpu().numpy()
    for reference in cfg.datasets:
        texts = pooled_set(subject, reference, cfg, progress=progress)
        _add_tpp(cfg, texts, W_dec, isinstance(subject.sae, ITDA), figures, curves)
    for reference in cfg.scr_datasets:
        texts = pooled_set(subject, reference, cfg, crossed=True, progress=progress)
        for first in (True, False):
            _add_scr(cfg, texts, W_dec, first, figures, curves)
    return Measured(figures, curves)


def _add_tpp(
    cfg: TargetedConfig, texts: PooledSet, W_dec: np.ndarray, signed: bool, figures: list[Figure], curves: list[Curve]
) -> None:
    n_classes = len(texts.classes)
    if n_classes < MIN_CLASSES:
        note = f"{n_classes} classes: the probe of one is that of the other turned round, so none can be spared"
        figures.append(Figure(metric="tpp", value=None, n=0, n_of="texts", setting=texts.name, note=note))
        return
    fitted = fit_tpp(texts.train, n_classes, W_dec, cfg.sizes, cfg.seed, cfg.n_draws, signed=signed)
    before, after = tpp_predictions(fitted, texts.test)
    counts = _counts(fitted.rankings, cfg.sizes)
    scores = score_tpp(before, after, texts.test.labels, texts.test.groups, cfg.seed)
    scores = [_withheld(one, counts, "tpp", "own", "other", "of_possible") for one in scores]
    figures += [figure for one in scores for figure in _tpp_figures(one, texts, _ablated(one, counts))]
    curves += _curves(TPP_PLOT, texts.name, [(one.arm, one.n, one.tpp.value) for one in scores])


def _tpp_figures(one: TPPScore, texts: PooledSet, ablated: str) -> list[Figure]:
    setting, share = f"{texts.name} n={one.n}", "TPP as a share of accuracy − 0.5"
    if one.of_possible.value is None and one.tpp.value is not None:
        share += f", which is under {MIN_POSSIBLE}: too little to be shared"
    rows = (
        ("tpp", one.tpp, "drop of the class's probe minus mean drop of the others', in balanced accuracy"),
        ("tpp_own_drop", one.own, "drop of the class's own probe"),
        ("tpp_other_drop", one.other, "mean drop of the other classes' probes"),
        ("tpp_of_possible", one.of_possible, share),
    )
    return [_figure(metric, told, one.arm, texts, setting, f"{note}; {ablated}") for metric, told, note in rows]


def _add_scr(
    cfg: TargetedConfig, texts: PooledSet, W_dec: np.ndarray, first: bool, figures: list[Figure], curves: list[Curve]
) -> None:
    fitted = fit_scr(texts.train, W_dec, cfg.sizes, cfg.seed, cfg.n_draws, first=first)
    biased, clean, after = scr_predictions(fitted, texts.test)
    scores = score_scr(biased, clean, after, texts.test.labels, texts.test.groups, cfg.seed, first=first)
    name = f"{texts.name}, {_direction(texts, first)}"
    note = f"bias costs {_text(scores[0].clean)} − {_text(scores[0].biased)} in balanced accuracy"
    if scores[0].scr.value is None:
        note += f", under {MIN_GAP}: too little to be undone"
    for metric, told in (("scr_biased_accuracy", scores[0].biased), ("scr_clean_accuracy", scores[0].clean)):
        figures.append(_figure(metric, told, "dense", texts, name, "balanced accuracy before any ablation"))
    counts = _counts(fitted.rankings, cfg.sizes)
    scores = [_withheld(one, counts, "scr", "ablated") for one in scores]
    for one in scores:
        figures += _scr_figures(one, texts, f"{name} n={one.n}", note, _ablated(one, counts))
    curves += _curves(SCR_PLOT, name, [(one.arm, one.n, one.scr.value) for one in scores])


def _scr_figures(one: SCRScore, texts: PooledSet, setting: str, note: str, ablated: str) -> list[Figure]:
    rows = (
        ("scr", one.scr, note),
        ("scr_ablated_accuracy", one.ablated, "balanced accuracy of the biased probe"),
    )
    return [_figure(metric, told, one.arm, texts, setting, f"{text}; {ablated}") for metric, told, text in rows]


def _counts(rankings: Sequence[Ranking], sizes: Sequence[int]) -> Counts:
    return {(ranking.arm, n): ranking.n_ablated(n) for ranking in rankings for n in sizes}


def _ran_out(one: TPPScore | SCRScore, counts: Counts) -> bool:
    """Whether there were fewer random latents than latents that they stand beside."""
    return one.arm == "random_latents" and counts[one.arm, one.n] < counts["sae", one.n]


def _withheld(one: S, counts: Counts, *names: str) -> S:
    """Without the named figures where the random latents ran out."""
    return replace(one, **dict.fromkeys(names, Told(None))) if _ran_out(one, counts) else one


def _ablated(one: TPPScore | SCRScore, counts: Counts) -> str:
    text = f"ablated {counts[one.arm, one.n]:.1f} on average"
    if _ran_out(one, counts):
        return f"withheld: no other latents left, {text} and {counts['sae', one.n]:.1f} of the dictionary's own"
    return text


def _direction(texts: PooledSet, first: bool) -> str:
    labels = " or ".join(sorted({label.rsplit(" / ", 1)[0] for label in texts.classes}))
    forms = " or ".join(FORMS)
    return f"{labels} despite case" if first else f"{forms} despite {labels}"


def _figure(metric: str, told: Told, arm: str, texts: PooledSet, setting: str, note: str) -> Figure:
    return Figure(
        metric=metric,
        value=told.value,
        n=len(texts.test.labels),
        n_of="texts",
        arm=arm,
        setting=setting,
        low=told.low,
        high=told.high,
        note=f"{note}; {of_groups(told, len(texts.test.labels), len(np.unique(texts.test.groups)))}",
    )


def _curves(plot: str, name: str, points: Sequence[tuple[str, int, float | None]]) -> list[Curve]:
    out = []
    for arm in dict.fromkeys(arm for arm, _, _ in points):
        known = [(float(n), value) for a, n, value in points if a == arm and value is not None]
        if known:
            x, y = (tuple(point[i] for point in known) for i in (0, 1))
            out.append(Curve(plot=plot, series=f"{name}: {arm}", x=x, y=y))
    return out


def _text(told: Told) -> str:
    return "?" if told.value is None else f"{told.value:.3f}"
