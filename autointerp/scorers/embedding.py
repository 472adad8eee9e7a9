"""The `embedding` scorer: are active contexts nearer to the explanation than silent ones?

AUROC of the cosine between explanation and context, after Paulo et al. 2024, arXiv:2410.13928, section 3.
"""

from collections import OrderedDict
from typing import ClassVar, final

import numpy as np

from autointerp.embedders import Embedder
from autointerp.latent import Explanation, Judged, Score, Trial
from autointerp.statistics import scored
from autointerp.tools import Tools

CHANCE = 0.5
N_KNOWN = 4096
"""Texts whose vectors are remembered: more than the trials that are worked on at once have."""
MIN_EACH = 2
"""Fewer contexts than this on a side give no score."""


@final
class EmbeddingScorer:
    """AUROC of cosine similarities; remembers the vectors of the last texts, so that nulls cost nothing."""

    reads_explanation: ClassVar[bool] = True
    wants: ClassVar[frozenset[str]] = frozenset({"items"})
    steers: ClassVar[bool] = False

    def __init__(self, embedder: Embedder) -> None:
        """Score with `embedder`."""
        self.embedder = embedder
        self._known: OrderedDict[str, np.ndarray] = OrderedDict()

    @classmethod
    def open(cls, tools: Tools) -> "EmbeddingScorer":
        """With the job's embedder."""
        return cls(tools.embedder)

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """The score of `explanation` on `trial`; None when a side has too few contexts."""
        if min(len(trial.active), len(trial.silent)) < MIN_EACH:
            return Score(None, None, CHANCE, n_judged=0, n_unparsed=0)
        vectors = self._embed([explanation.input_text, *(item.window.text for item in trial.items)])
        examples = [
            Judged(item.kind, item.window, float(item.active), float(similarity))
            for item, similarity in zip(trial.items, vectors[1:] @ vectors[0], strict=True)
        ]
        return scored(examples, value="auroc", chance=CHANCE, base_rate=trial.base_rate, seed=trial.seed)

    def _embed(self, texts: list[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            # Copies: a row of a batch would hold all of it.
            self._known.update((text, vector.copy()) for text, vector in zip(new, self.embedder(new), strict=True))
        vectors = np.stack([self._known[text] for text in texts])
        while len(self._known) > N_KNOWN:
            self._known.popitem(last=False)
        return vectors
