"""The `embedding` scorer: are active contexts nearer to the explanation than silent ones?

AUROC of the cosine between explanation and context, after Paulo et al. 2024, arXiv:2410.13928, section 3.
"""

from typing import ClassVar, final

import numpy as np
from scipy.stats import bootstrap, rankdata

from autointerp.embedders import Embedder
from autointerp.latent import Explanation, Score, Trial
from autointerp.tools import Tools

CHANCE = 0.5
N_RESAMPLES = 1000
MIN_EACH = 2
"""Fewer contexts than this on a side give no score."""


@final
class EmbeddingScorer:
    """AUROC of cosine similarities; remembers the vectors of texts it has seen, so that nulls cost nothing."""

    reads_explanation: ClassVar[bool] = True
    wants: ClassVar[frozenset[str]] = frozenset({"items"})

    def __init__(self, embedder: Embedder) -> None:
        """Score with `embedder`."""
        self.embedder = embedder
        self._known: dict[str, np.ndarray] = {}

    @classmethod
    def open(cls, tools: Tools) -> "EmbeddingScorer":
        """With the job's embedder."""
        return cls(tools.embedder)

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """The score of `explanation` on `trial`; None when a side has too few contexts."""
        texts = [window.text for window in (*trial.active, *trial.silent)]
        n_active = len(trial.active)
        if min(n_active, len(trial.silent)) < MIN_EACH:
            return Score(None, None, CHANCE, n_judged=0, n_unparsed=0)
        vectors = self._embed([explanation.input_text, *texts])
        similarity = vectors[1:] @ vectors[0]
        active, silent = similarity[:n_active].astype(float), similarity[n_active:].astype(float)
        return Score(float(auroc(active, silent)), interval(active, silent), CHANCE, n_judged=len(texts), n_unparsed=0)

    def _embed(self, texts: list[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self.embedder(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def auroc(positive: np.ndarray, negative: np.ndarray, axis: int = -1) -> np.ndarray | np.float64:
    """P(a positive exceeds a negative) + ½ P(they are equal), along `axis`: the Mann-Whitney U over n₁ n₂."""
    n_positive, n_negative = positive.shape[axis], negative.shape[axis]
    ranks = rankdata(np.concatenate([positive, negative], axis=axis), axis=axis)
    rank_sum = np.take(ranks, range(n_positive), axis=axis).sum(axis=axis)
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def interval(active: np.ndarray, silent: np.ndarray) -> tuple[float, float]:
    """95% percentile bootstrap over contexts, resampled within each side, from a fixed seed."""
    random = np.random.default_rng(0)
    found = bootstrap(
        (active, silent), auroc, n_resamples=N_RESAMPLES, method="percentile", vectorized=True, rng=random
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
