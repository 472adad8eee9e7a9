"""How alike the activations at two hook points are, on the same tokens, each measure beside that of shuffled rows."""

from collections.abc import Iterator

import torch
from torch import Tensor

from app.evaluation.paired_rows import Side
from app.evaluation.told import Told, Way
from sae.similarity import (
    StreamingCKA,
    canonical_correlations,
    enough_rows,
    fit_linear,
    kept_directions,
    relative_similarity,
    shuffled,
)
from store.figures import SAE_ARM

SHUFFLED = "shuffled rows"
METRICS: dict[str, tuple[Way, ...]] = {
    "cka_debiased": ("both",),
    "cka": ("both",),
    "svcca": ("both",),
    "relative_representations": ("both",),
    "linear_r2": ("forth", "back"),
}
"""What is measured, and in which directions."""
Values = dict[str, float | None]
"""By arm."""


def not_compared(reason: str) -> list[Told]:
    """Every measure without a value."""
    return [
        Told(metric=metric, value=None, n=0, n_of="rows", arm=arm, way=way, note=reason)
        for metric, ways in METRICS.items()
        for way in ways
        for arm in (SAE_ARM, SHUFFLED)
    ]


def compare_sides(a: Side, b: Side, n_anchors: int, variance_kept: float, generator: torch.Generator) -> Iterator[Told]:
    """Every measure, of the pairs as they are and with the rows of `b` shuffled."""
    x, y = a.x, b.x
    torn = shuffled(y, generator)
    yield from _cka(x, y, torn)
    yield from _svcca(x, y, variance_kept, generator)
    # rows were drawn at random, so the first are as good as any
    anchors = torch.arange(min(n_anchors, len(x) // 2))
    values = {arm: relative_similarity(x, of_b, anchors) for arm, of_b in ((SAE_ARM, y), (SHUFFLED, torn))}
    yield from _told("relative_representations", len(x) - len(anchors), values, f"{len(anchors)} anchors")
    yield from _regression(a, b, "forth", generator)
    yield from _regression(b, a, "back", generator)


def _told(metric: str, n: int, values: Values, note: str = "", way: Way = "both") -> Iterator[Told]:
    for arm, value in values.items():
        why = note if value is not None else note or "a side does not vary"
        yield Told(metric=metric, value=value, n=n, n_of="rows", arm=arm, way=way, note=why)


def _cka(x: Tensor, y: Tensor, torn: Tensor) -> Iterator[Told]:
    cka = StreamingCKA()
    cka.update(x, y, torn)
    found = {SAE_ARM: cka.value(), SHUFFLED: cka.null()}
    yield from _told("cka_debiased", len(x), {arm: value.debiased for arm, value in found.items()})
    yield from _told("cka", len(x), {arm: value.biased for arm, value in found.items()})


def _svcca(x: Tensor, y: Tensor, variance_kept: float, generator: torch.Generator) -> Iterator[Told]:
    if reason := _too_few(len(x), x.shape[1], y.shape[1]):
        yield from _told("svcca", len(x), {SAE_ARM: None, SHUFFLED: None}, reason)
        return
    one, two = kept_directions(x, variance_kept), kept_directions(y, variance_kept)
    both = {SAE_ARM: two, SHUFFLED: shuffled(two, generator)}
    values = {arm: _mean(canonical_correlations(one, other)) for arm, other in both.items()}
    yield from _told("svcca", len(x), values, f"{one.shape[1]} and {two.shape[1]} directions kept")


def _regression(a: Side, b: Side, way: Way, generator: torch.Generator) -> Iterator[Told]:
    n, n_fitted = len(a.x), len(a.fitted)
    if reason := _too_few(n_fitted, a.x.shape[1]):
        yield from _told("linear_r2", n, {SAE_ARM: None, SHUFFLED: None}, reason, way)
        return
    as_is = fit_linear(a.fitted, b.fitted).r2(a.x, b.x)
    torn = fit_linear(a.fitted, shuffled(b.fitted, generator)).r2(a.x, shuffled(b.x, generator))
    yield from _told("linear_r2", n, {SAE_ARM: as_is, SHUFFLED: torn}, f"fitted on {n_fitted} training rows", way)


def _too_few(n: int, *widths: int) -> str:
    """Why there are not enough rows, if there are not."""
    needed = enough_rows(max(widths))
    return "" if n >= needed else f"{n} rows of width {max(widths)}, and {needed} are needed: harvest more text"


def _mean(values: Tensor) -> float | None:
    return values.mean().item() if len(values) else None
