"""The table of parts: what each measures, in which settings, and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from activations.progress import Progress
from app.evaluation.atoms import AtomsConfig, measure_atoms
from app.evaluation.geometry import GeometryConfig, measure_geometry
from app.evaluation.recovery import RecoveryConfig, measure_recovery
from app.evaluation.subject import Subject
from store.figures import Measured


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of an evaluation."""

    config: type[Any]
    """Its settings; has a `quick` preset."""
    measure: Callable[[Any, Subject, Progress], Measured]
    summary: str
    """What it measures, in a line."""


PARTS: dict[str, Part] = {
    "geometry": Part(
        config=GeometryConfig,
        measure=measure_geometry,
        summary="how near decoder directions lie to each other, and how many dimensions they fill",
    ),
    "atoms": Part(
        config=AtomsConfig,
        measure=measure_atoms,
        summary="sparse reconstruction, coherence under three inner products, and the share with unique sparse sums",
    ),
    "recovery": Part(
        config=RecoveryConfig,
        measure=measure_recovery,
        summary="planted features that the variant, with these settings, recovers on synthetic data",
    ),
}
"""Every part by the name that `--only` takes, cheapest first."""
