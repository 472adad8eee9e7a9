"""Whether a layer of one model is found by its likeness to the same layer of another, measure by measure."""

import re
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from app.evaluation.subject import Subject
from sae.itda import ITDA
from sae.similarity import matched_layers
from store.figures import SAE_ARM, Figure

MEASURES = (
    "jaccard",
    "jaccard_adjusted",
    "jaccard_beyond_seeds",
    "jaccard_beyond_seeds_adjusted",
    "cka_debiased",
    "cka",
    "svcca",
    "relative_representations",
    "linear_r2",
)
"""What layers are matched by."""
CHANCE = "chance"
SHUFFLED = "shuffled rows"
Name = Callable[[Subject, Subject], str]


def match_layers(subjects: Sequence[Subject], figures: Sequence[Figure], label: Name, arrow: Name) -> Iterator[Figure]:
    """For each measure the share of layers that are matched, self-pairs left out; nothing for a single model.

    Args:
        subjects: the dictionaries.
        figures: of all their pairs.
        label: names a pair as its figures do.
        arrow: names it where direction matters.
    """
    models = _models(subjects)
    n_layers = {len(layers) for layers in models}
    if len(models) < 2 or max(n_layers) < 2:
        return
    found = {(figure.metric, figure.arm, figure.setting): figure.value for figure in figures}
    for metric in MEASURES:
        reason = "" if len(n_layers) == 1 else f"models with {sorted(n_layers)} layers: name as many of each"
        for arm in (SAE_ARM, SHUFFLED):
            similarity = None if reason else _similarity(models, found, metric, arm, label, arrow)
            if arm == SAE_ARM or similarity is not None:
                yield _matched(metric, arm, similarity, reason)
        yield Figure(
            metric="layer_match",
            value=1 / max(n_layers),
            n=max(n_layers),
            n_of="layers to choose from",
            arm=CHANCE,
            setting=metric,
        )


def _matched(metric: str, arm: str, similarity: Tensor | None, reason: str) -> Figure:
    if similarity is None:
        note = reason or "some of the pairs have no value: see theirs"
        return Figure(metric="layer_match", value=None, n=0, n_of="layers", arm=arm, setting=metric, note=note)
    matched = matched_layers(similarity)
    return Figure(
        metric="layer_match", value=matched.accuracy, n=matched.n_judged, n_of="layers", arm=arm, setting=metric
    )


def _models(subjects: Sequence[Subject]) -> list[list[Subject]]:
    """For each model, told by its weights, one dictionary a hook point in their order: an ITDA where there is one."""
    models: dict[str, dict[str, Subject]] = {}
    for subject in sorted(subjects, key=lambda s: not isinstance(s.sae, ITDA)):
        weights = subject.activations_run.same["model"]["weights"]
        models.setdefault(weights, {}).setdefault(subject.activations.hook_point, subject)
    return [[layers[name] for name in sorted(layers, key=_by_number)] for layers in models.values()]


def _by_number(name: str) -> list[tuple[int, str]]:
    """blocks.9 before blocks.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _similarity(
    models: Sequence[Sequence[Subject]],
    found: dict[tuple[str, str, str], float | None],
    metric: str,
    arm: str,
    label: Name,
    arrow: Name,
) -> Tensor | None:
    """`[model, other, layer, other_layer]`, a model with itself left at NaN; None where a value is missing."""
    n_models, n_layers = len(models), len(models[0])
    similarity = torch.full((n_models, n_models, n_layers, n_layers), torch.nan, dtype=torch.float64)
    for one, two in ((m, n) for m in range(n_models) for n in range(n_models) if m != n):
        for i, a in enumerate(models[one]):
            for j, b in enumerate(models[two]):
                names = (arrow(a, b), label(a, b), label(b, a))
                value = next((v for name in names if (v := found.get((metric, arm, name))) is not None), None)
                if value is None:
                    return None
                similarity[one, two, i, j] = value
    return similarity
