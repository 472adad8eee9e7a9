"""Scorers: does an explanation tell where its latent fires? One file and one line in `SCORERS` each."""

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

from autointerp.latent import Explanation, Score, Trial
from autointerp.scorers.embedding import EmbeddingScorer
from autointerp.tools import Tools


@runtime_checkable
class Scorer(Protocol):
    """Judges an explanation on contexts that its explainer never saw."""

    reads_explanation: ClassVar[bool]
    """False where it judges the latent by its contexts alone: nulls of the explanation say nothing of it then."""
    wants: ClassVar[frozenset[str]]
    """Which of `autointerp.sample.TRIAL` it reads; no other is looked for."""

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """How well `explanation` tells the trial's active contexts from its silent ones."""
        ...


SCORERS: dict[str, Callable[[Tools], Scorer]] = {"embedding": EmbeddingScorer.open}
"""Every scorer by the name used on the command line."""
