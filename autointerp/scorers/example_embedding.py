"""The `example_embedding` scorer: are active contexts nearer to one another than silent ones are to them?

AUROC of the cosine to the mean vector of held-out active contexts. No explanation is read: it is the ceiling that an
embedder gives the `embedding` scorer, and tells how alike a latent's contexts are at all.
"""

from typing import ClassVar, final

import numpy as np

from autointerp.embedders import Embedder
from autointerp.latent import Explanation, Item, Judged, Score, Trial
from autointerp.statistics import scored
from autointerp.tools import Tools

CHANCE = 0.5
MIN_EACH = 2
"""Fewer contexts than this to compare with, or on a side, give no score."""


@final
class ExampleEmbeddingScorer:
    """AUROC of cosine similarities to other active contexts."""

    reads_explanation: ClassVar[bool] = False
    wants: ClassVar[frozenset[str]] = frozenset({"items"})
    steers: ClassVar[bool] = False

    def __init__(self, embedder: Embedder) -> None:
        """Score with `embedder`."""
        self.embedder = embedder

    @classmethod
    def open(cls, tools: Tools) -> "ExampleEmbeddingScorer":
        """With the job's embedder."""
        return cls(tools.embedder)

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """Half of the active contexts are what the rest, and the silent ones, are compared with."""
        del explanation
        active = [item for item in trial.items if item.active]
        known, asked = active[::2], [*active[1::2], *(item for item in trial.items if not item.active)]
        if min(len(known), len(active) - len(known), len(trial.items) - len(active)) < MIN_EACH:
            return Score(None, None, CHANCE, n_judged=0, n_unparsed=0)
        nearness = self._embed(asked) @ self._embed(known).mean(axis=0)
        examples = [
            Judged(item.kind, item.window, float(item.active), float(near))
            for item, near in zip(asked, nearness, strict=True)
        ]
        return scored(examples, value="auroc", chance=CHANCE, seed=trial.seed)

    def _embed(self, items: list[Item]) -> np.ndarray:
        return np.asarray(self.embedder([item.window.text for item in items]), float)
