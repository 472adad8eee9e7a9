"""The `intruder` scorer: is there anything that a latent's active contexts have in common, explained or not?

A judge finds the silent context among four active ones, after Chang et al. 2009 ("Reading tea leaves", NeurIPS) by way
of Paulo et al. 2025, arXiv:2507.08473. No explanation is read: it tells how interpretable the latent is at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from autointerp.latent import Explanation, Item, Score, Trial
from autointerp.llm import LLM
from autointerp.parse import one_of
from autointerp.prompts import marked, quote
from autointerp.prompts.judging import INTRUDER
from autointerp.scorers.asking import Form, Question, ask
from autointerp.statistics import scored
from autointerp.tools import Tools

N_IN_GROUP = 5
"""Four active contexts and one intruder."""
CHANCE = 1 / N_IN_GROUP


@final
@dataclass(frozen=True, kw_only=True)
class IntruderScorer:
    """The share of groups in which the judge finds the silent context."""

    reads_explanation: ClassVar[bool] = False
    wants: ClassVar[frozenset[str]] = frozenset({"items"})
    steers: ClassVar[bool] = False

    llm: LLM
    n_packed: int = 5
    """Most groups of one prompt."""

    @classmethod
    def open(cls, tools: Tools) -> "IntruderScorer":
        """With the job's language model; as many contexts in a prompt as other scorers have."""
        return cls(llm=tools.llm, n_packed=max(1, tools.cfg.per_prompt // N_IN_GROUP))

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """Accuracy over as many groups as there are contexts for, each context in one group at most."""
        del explanation
        form = Form(
            prompt=INTRUDER,
            read=one_of(N_IN_GROUP),
            schema={"type": "integer", "minimum": 1, "maximum": N_IN_GROUP},
            n_packed=self.n_packed,
            n_contexts=N_IN_GROUP,
        )
        examples = await ask(self.llm, form, groups(trial))
        return scored(examples, value="accuracy", chance=CHANCE, prompt=INTRUDER.tag, seed=trial.seed, beside=())


def groups(trial: Trial) -> list[Question]:
    """Groups of four active contexts and a silent one, at a place drawn at random; the truth is that place."""
    random = np.random.default_rng([trial.seed, 4])
    active = [item for item in trial.items if item.active]
    silent = [item for item in trial.items if not item.active]
    n_groups = min(len(active) // (N_IN_GROUP - 1), len(silent))
    return [
        _group(active[i * (N_IN_GROUP - 1) : (i + 1) * (N_IN_GROUP - 1)], silent[i], int(random.integers(N_IN_GROUP)))
        for i in range(n_groups)
    ]


def _group(active: Sequence[Item], intruder: Item, place: int) -> Question:
    items = [*active[:place], intruder, *active[place:]]
    texts = (f"({i}) {quote(marked(item.window, item.marked))}" for i, item in enumerate(items, start=1))
    return Question("\n" + "\n".join(texts), intruder.kind, float(place + 1), intruder.window)
