"""The table of parts: what each measures, in which settings, and what it costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from activations.progress import Progress
from app.evaluation.itda import ItdaConfig, measure_itda
from app.evaluation.similarity import SimilarityConfig, measure_similarity
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


@dataclass(frozen=True, kw_only=True)
class Across:
    """One part that measures dictionaries against each other."""

    config: type[Any]
    """Its settings; has a `quick` preset."""
    measure: Callable[[Any, Sequence[Subject], Progress], Measured]
    summary: str
    """What it measures, in a line."""


PARTS: dict[str, Part] = {
    "itda": Part(
        config=ItdaConfig,
        measure=measure_itda,
        summary="What an ITDA keeps under MP and OMP, beside as many random activations.",
    ),
}
"""Every part by the name that `--only` takes, cheapest first."""
ACROSS: dict[str, Across] = {
    "similarity": Across(
        config=SimilarityConfig,
        measure=measure_similarity,
        summary="How alike every two dictionaries, and the activations they read, are.",
    ),
}
"""Every part that takes two or more dictionaries."""
