"""The table of parts: what each measures, in which settings, and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from activations.progress import Progress
from app.evaluation.absorption import AbsorptionConfig, measure_absorption
from app.evaluation.probing import ProbingConfig, measure_probing
from app.evaluation.subject import Subject
from app.evaluation.targeted import TargetedConfig, measure_targeted
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
    "targeted": Part(
        config=TargetedConfig, measure=measure_targeted, summary="what ablating a class's latents costs it and others"
    ),
    "probing": Part(
        config=ProbingConfig, measure=measure_probing, summary="how well a few latents tell labelled texts apart"
    ),
    "absorption": Part(
        config=AbsorptionConfig, measure=measure_absorption, summary="latents that take over part of another's words"
    ),
}
"""Every part by the name that `--only` takes, cheapest first."""
