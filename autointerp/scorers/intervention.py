"""The `intervention` scorer: does what a model writes when it is steered along the latent call up the explanation?

A reader tells how much likelier the explanation is after a steered continuation than after the clean one of the same
context and seed: log p(explanation | steered) − log p(explanation | clean), Paulo et al. 2024, arXiv:2410.13928,
section 3.4. The score is the AUROC of that gain, continuations along the latent against those along random directions
and other latents of the same effect on the model: 0.5 for an explanation that says nothing of what the latent does.
"""

import asyncio
from typing import ClassVar, final

import numpy as np

from autointerp.latent import Explanation, Judged, Score, Trial
from autointerp.llm import Reader
from autointerp.prompts.output_intervention import DESCRIBE
from autointerp.scorers.continuations import STEERED, Continuations, InterventionConfig, continuations
from autointerp.scorers.recent import Recent
from autointerp.statistics import scored
from autointerp.steering import Steerable, Steered
from autointerp.tools import Tools

CHANCE = 0.5


@final
class InterventionScorer:
    """The gain of the explanation's log-probability from steering, against controls of equal effect."""

    reads_explanation: ClassVar[bool] = True
    wants: ClassVar[frozenset[str]] = frozenset({"items"})
    steers: ClassVar[bool] = True

    def __init__(self, subject: Steerable, reader: Reader, cfg: InterventionConfig | None = None) -> None:
        """Steer `subject`, and have `reader` read what it writes."""
        self.subject, self.reader, self.cfg = subject, reader, cfg or InterventionConfig()
        self._written: Recent[Continuations] = Recent()

    @classmethod
    def open(cls, tools: Tools) -> "InterventionScorer":
        """With the job's model and reader; a UsageError where there is none of either."""
        return cls(tools.subject, tools.reader)

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """The score; continuations that no strength gave the wanted effect, or that could not be read, are counted as
        unparsed."""
        key = (trial.latent, trial.seed, trial.items)
        written = await self._written.get(key, lambda: continuations(self.subject, trial, self.cfg))
        clean = await asyncio.gather(*(self._nats(explanation, said) for said in written.clean))
        rows = await asyncio.gather(
            *(
                self._row(arm, i, said, clean[i], explanation, written)
                for arm, each in written.arms.items()
                for i, said in enumerate(each)
            )
        )
        return scored(rows, value="auroc", chance=CHANCE, prompt=DESCRIBE.tag, seed=trial.seed)

    async def _row(
        self,
        arm: str,
        i: int,
        said: Steered | None,
        clean: float | None,
        explanation: Explanation,
        written: Continuations,
    ) -> Judged:
        nats = await self._nats(explanation, said)
        return Judged(
            arm,
            written.prompts[i],
            float(arm == STEERED),
            None if nats is None or clean is None else nats - clean,
            text=said.text if said else "",
        )

    async def _nats(self, explanation: Explanation, said: Steered | None) -> float | None:
        """Log-probability of the explanation after what was written; 0 of one without words."""
        if said is None:
            return None
        words = " ".join((explanation.output_text or explanation.text).split())
        if not words:
            return 0.0
        prefix = DESCRIBE.template.format(text=" ".join(said.text.split()))
        (found,) = await self.reader.logprobs(prefix, [" " + words])
        return float(found.sum()) if len(found) and np.isfinite(found.sum()) else None
