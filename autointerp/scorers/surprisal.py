"""The `surprisal` scorer: does the explanation make active contexts less surprising to a model, and silent ones not?

AUROC, active against silent, of mean over tokens of log p(token | explanation) − log p(token | generic description):
the decrease in cross-entropy of Paulo et al. 2024, arXiv:2410.13928, section 3.
"""

import asyncio
from typing import ClassVar, final

import numpy as np

from autointerp.latent import Explanation, Judged, Score, Trial
from autointerp.llm import Reader
from autointerp.prompts.output_surprisal import FORESEE, GENERIC
from autointerp.scorers.recent import Recent
from autointerp.statistics import scored
from autointerp.tools import Tools

CHANCE = 0.5


@final
class SurprisalScorer:
    """A model reads every context after the explanation and after a description that says nothing."""

    reads_explanation: ClassVar[bool] = True
    wants: ClassVar[frozenset[str]] = frozenset({"items"})
    steers: ClassVar[bool] = False

    def __init__(self, reader: Reader) -> None:
        """Read with `reader`."""
        self.reader = reader
        self._generic: Recent[list[float | None]] = Recent()

    @classmethod
    def open(cls, tools: Tools) -> "SurprisalScorer":
        """With the job's reader; a UsageError where its language model cannot be one."""
        return cls(tools.reader)

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """How well the gain in nats per token tells active contexts from silent ones; a context that has no tokens or
        no finite likelihood is counted as unparsed."""
        texts = tuple(item.window.text.strip() for item in trial.items)
        told, generic = await asyncio.gather(
            self._nats(explanation.input_text, texts),
            self._generic.get(texts, lambda: self._nats(GENERIC, texts)),
        )
        examples = [
            Judged(item.kind, item.window, float(item.active), None if a is None or b is None else a - b)
            for item, a, b in zip(trial.items, told, generic, strict=True)
        ]
        return scored(examples, value="auroc", chance=CHANCE, prompt=FORESEE.tag, seed=trial.seed)

    async def _nats(self, description: str, texts: tuple[str, ...]) -> list[float | None]:
        """Mean log-probability per token of each text after the description."""
        prefix = FORESEE.template.format(description=" ".join(description.split()))
        asked = [text for text in texts if text]
        found = iter(await self.reader.logprobs(prefix, asked))
        return [_mean(next(found)) if text else None for text in texts]


def _mean(logprobs: np.ndarray) -> float | None:
    mean = float(logprobs.mean()) if len(logprobs) else np.nan
    return mean if np.isfinite(mean) else None
