"""Scorers: does an explanation tell where its latent fires? One file and one line in `SCORERS` each."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from autointerp.embedders import Embedder
from autointerp.latent import Explanation, Score, Trial
from autointerp.scorers.embedding import EmbeddingScorer


@runtime_checkable
class Scorer(Protocol):
    """Judges an explanation on contexts that its explainer never saw."""

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """How well `explanation` tells the trial's active contexts from its silent ones."""
        ...


SCORERS: dict[str, Callable[[Embedder], Scorer]] = {"embedding": EmbeddingScorer}
"""Every scorer by the name used on the command line."""
