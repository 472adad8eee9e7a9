"""Sparse probing on labelled texts: k latents against the activations themselves, with every control beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from activations.progress import Progress, no_progress
from app.evaluation.pooled import PooledSet, TextsConfig, pooled_set
from app.evaluation.subject import NotApplicable, Subject
from app.evaluation.withheld import of_groups
from sae.probe_scores import Told
from sae.probing import ALL, ArmScores, fit, predictions, score, text_counts
from store.errors import UsageError
from store.figures import Curve, Figure, Measured

PLOT = "probing"
PLOTTED = ("sae", "random_latents", "best_neurons", "shuffled_labels")
METRICS = ("accuracy", "balanced_accuracy", "auroc")


@dataclass(frozen=True, kw_only=True)
class ProbingConfig(TextsConfig):
    """Which texts are told apart, and by how many latents."""

    datasets: tuple[str, ...] = ("topics", "parties", "reviews", "kinds")
    """`topics` (five newsgroups), `parties` (passages of speeches), `reviews` (fresh or rotten), `kinds` (film plot or
    review), `made_up` (small, no download), or a .csv, .tsv or .jsonl file with columns `text` and `label`."""
    ks: tuple[int, ...] = (1, 2, 5)
    """Latents a probe may read."""
    n_draws: int = 10
    """Seeds of the random controls, and of refits on four fifths of the training groups."""
    seed: int = 0
    """Of folds, random choices and intervals."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.datasets:
            raise UsageError("datasets is empty: name at least one, such as topics")
        if not self.ks or min(self.ks) < 1:
            raise UsageError(f"ks={self.ks}: a probe reads at least 1 latent")
        if self.n_draws < 1:
            raise UsageError(f"n_draws={self.n_draws}: the controls need at least 1 draw")

    @classmethod
    def quick(cls) -> "ProbingConfig":
        """Two data sets, fewer and shorter texts."""
        return cls(datasets=("topics", "kinds"), n_train=200, n_test=150, max_tokens=32, n_draws=5)


def measure_probing(cfg: ProbingConfig, subject: Subject, progress: Progress = no_progress) -> Measured:
    """Accuracy, balanced accuracy and AUROC on test texts, by data set and k.

    Raises:
        UsageError: a data set that is not there or has too few texts of a label.
        NotApplicable: no latent is active on any training text.
    """
    figures, curves = [], []
    by_set: list[list[ArmScores]] = []
    norms = subject.sae.W_dec.detach().double().norm(dim=1).cpu().numpy()
    for reference in cfg.datasets:
        texts = pooled_set(subject, reference, cfg, progress=progress)
        _check_live(texts)
        fitted = fit(texts.train, len(texts.classes), norms, cfg.ks, cfg.seed, cfg.n_draws)
        predicted = predictions(fitted, texts.test)
        scores = score(fitted, predicted, texts.test.labels, texts.test.groups, cfg.seed)
        by_set.append(scores)
        figures += [figure for one in scores for figure in _figures(one, texts)]
        curves += _curves(scores, texts.name, cfg.ks)
    return Measured(_means(by_set) + figures, curves)


def _figures(one: ArmScores, texts: PooledSet) -> list[Figure]:
    setting = f"{texts.name} {_features(one.k)}"
    if one.over == "seeds":
        return [_refitted(one, setting)]
    return [_figure(metric, getattr(one, metric), one, texts, setting) for metric in METRICS]


def _check_live(texts: PooledSet) -> None:
    if not text_counts(texts.train.latents).any():
        raise NotApplicable(
            f"no latent is active on any of the {len(texts.train.labels)} training texts of {texts.name}, so there is "
            "nothing to probe: take a dictionary with live latents"
        )


def _refitted(one: ArmScores, setting: str) -> Figure:
    """Refits share most of their texts, so their spread is a range, and no interval of the mean."""
    n = len(one.by_draw)
    several = f"lowest and highest of {n} refits, no interval" if n > 1 else "no interval: 1 refit"
    return Figure(
        metric="probe_balanced_accuracy_refitted",
        value=float(np.mean(one.by_draw)),
        n=n,
        n_of="seeds",
        arm=one.arm,
        setting=setting,
        low=min(one.by_draw) if n > 1 else None,
        high=max(one.by_draw) if n > 1 else None,
        note=f"refitted on four fifths of the training groups; {several}",
    )


def _figure(metric: str, told: Told, one: ArmScores, texts: PooledSet, setting: str) -> Figure:
    rests_on = of_groups(told, len(texts.test.labels), len(np.unique(texts.test.groups)))
    return Figure(
        metric=f"probe_{metric}",
        value=told.value,
        n=len(texts.test.labels),
        n_of="texts",
        arm=one.arm,
        setting=setting,
        low=told.low,
        high=told.high,
        note=f"{len(texts.classes)} classes, {len(texts.train.labels)} training texts; "
        f"{rests_on}{_draws(told, one.by_draw)}",
    )


def _draws(told: Told, by_draw: Sequence[float]) -> str:
    if len(by_draw) < 2:
        return ""
    interval = "interval of a single one, " if told.low is not None else ""
    return f"; mean of {len(by_draw)} draws, {interval}their sd {np.std(by_draw, ddof=1):.3f}"


def _means(by_set: Sequence[Sequence[ArmScores]]) -> list[Figure]:
    """Of each arm and k over the data sets."""
    out = []
    for same in zip(*by_set, strict=True):
        values = [one.balanced_accuracy.value for one in same]
        known = [value for value in values if value is not None]
        if same[0].over != "seeds":
            out.append(
                Figure(
                    metric="probe_balanced_accuracy",
                    value=float(np.mean(known)) if len(known) == len(values) else None,
                    n=len(values),
                    n_of="data sets",
                    arm=same[0].arm,
                    setting=f"mean {_features(same[0].k)}",
                    note="mean over data sets",
                )
            )
    return out


def _curves(scores: Sequence[ArmScores], name: str, ks: Sequence[int]) -> list[Curve]:
    found = {(one.arm, one.k): one.balanced_accuracy.value for one in scores if one.over == "draws"}
    out = []
    for arm in PLOTTED:
        points = [(float(k), value) for k in ks if (value := found[arm, k]) is not None]
        x, y = (tuple(point[i] for point in points) for i in (0, 1))
        out.append(Curve(plot=PLOT, series=f"{name}: {arm}", x=x, y=y))
    dense = found["dense", ALL]
    if dense is not None:
        ends = (float(min(ks)), float(max(ks)))
        out.append(Curve(plot=PLOT, series=f"{name}: dense", x=ends, y=(dense, dense)))
    return out


def _features(k: int) -> str:
    return "all" if k == ALL else f"k={k}"
