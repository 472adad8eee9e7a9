"""Scorers: does an explanation tell where its latent fires? One file and one line in `SCORERS` each."""

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

from autointerp.latent import Explanation, Score, Trial
from autointerp.scorers.detection import DetectionScorer, FuzzingScorer
from autointerp.scorers.discrimination import DiscriminationScorer
from autointerp.scorers.embedding import EmbeddingScorer
from autointerp.scorers.example_embedding import ExampleEmbeddingScorer
from autointerp.scorers.generation import GenerationScorer
from autointerp.scorers.intervention import InterventionScorer
from autointerp.scorers.intervention_choice import InterventionChoiceScorer
from autointerp.scorers.intruder import IntruderScorer
from autointerp.scorers.simulation import SimulationLogprobsScorer, SimulationScorer
from autointerp.scorers.surprisal import SurprisalScorer
from autointerp.tools import Tools


@runtime_checkable
class Scorer(Protocol):
    """Judges an explanation on contexts that its explainer never saw."""

    reads_explanation: ClassVar[bool]
    """False where it judges the latent by its contexts alone: nulls of the explanation say nothing of it then."""
    wants: ClassVar[frozenset[str]]
    """Which of `autointerp.sample.TRIAL` it reads; no other is looked for."""
    steers: ClassVar[bool]
    """Whether it judges what the model writes with the latent turned up; it has random directions of its own then."""

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """How well `explanation` tells the trial's active contexts from its silent ones."""
        ...


SCORERS: dict[str, Callable[[Tools], Scorer]] = {
    "detection": DetectionScorer.open,
    "discrimination": DiscriminationScorer.open,
    "embedding": EmbeddingScorer.open,
    "example_embedding": ExampleEmbeddingScorer.open,
    "fuzzing": FuzzingScorer.open,
    "generation": GenerationScorer.open,
    "intervention": InterventionScorer.open,
    "intervention_choice": InterventionChoiceScorer.open,
    "intruder": IntruderScorer.open,
    "simulation": SimulationScorer.open,
    "simulation_logprobs": SimulationLogprobsScorer.open,
    "surprisal": SurprisalScorer.open,
}
"""Every scorer by the name used on the command line."""
