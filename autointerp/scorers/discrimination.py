"""The `discrimination` scorer: does an explanation tell its latent from the ones that are most like it?

A judge picks, among the contexts of a latent and those of its nearest neighbours, the ones that the explanation is of.
An explanation that is true but too wide fails here and passes detection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from autointerp.latent import Explanation, Neighbour, Score, Trial
from autointerp.llm import LLM
from autointerp.parse import one_of
from autointerp.prompts import marked, quote
from autointerp.prompts.judging import DISCRIMINATION
from autointerp.scorers.asking import Form, Question, ask
from autointerp.statistics import scored
from autointerp.tools import Tools
from store.latents import Window

MOST_UNITS = 4
"""The latent and at most three neighbours."""
PER_UNIT = 3
"""Contexts of each in a question."""
KIND = "discrimination"


@final
@dataclass(frozen=True, kw_only=True)
class DiscriminationScorer:
    """The share of questions in which the judge finds the latent.

    Each has a prompt of its own. Neighbours' contexts come again in other questions, the latent's own do not: of two
    in one prompt, the unit whose texts are new would be the right one, whatever the explanation says.
    """

    reads_explanation: ClassVar[bool] = True
    wants: ClassVar[frozenset[str]] = frozenset({"items", "neighbours"})
    steers: ClassVar[bool] = False

    llm: LLM

    @classmethod
    def open(cls, tools: Tools) -> "DiscriminationScorer":
        """With the job's language model."""
        return cls(llm=tools.llm)

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """Accuracy; None where no neighbour fires where the latent is silent."""
        units = near(trial)
        n_units = 1 + len(units)
        if n_units == 1:
            return Score(None, None, 0.5, n_judged=0, n_unparsed=0, prompt=DISCRIMINATION.tag)
        form = Form(
            prompt=DISCRIMINATION,
            read=one_of(n_units),
            schema={"type": "integer", "minimum": 1, "maximum": n_units},
            n_packed=1,
            n_contexts=0,
        )
        questions = lineups(trial, units)
        examples = await ask(self.llm, form, questions, explanation=quote(explanation.input_text))
        return scored(
            examples, value="accuracy", chance=1 / n_units, prompt=DISCRIMINATION.tag, seed=trial.seed, beside=()
        )


def near(trial: Trial) -> list[Neighbour]:
    """The nearest neighbours that have contexts to compare with."""
    return [each for each in trial.neighbours if len(each.windows) >= PER_UNIT][: MOST_UNITS - 1]


def lineups(trial: Trial, units: Sequence[Neighbour]) -> list[Question]:
    """A question for every three active contexts; neighbours have fewer, and theirs are drawn anew for each."""
    random = np.random.default_rng([trial.seed, 5])
    active = trial.active
    return [_lineup(active[i : i + PER_UNIT], units, random) for i in range(0, len(active) - PER_UNIT + 1, PER_UNIT)]


def _lineup(own: Sequence[Window], units: Sequence[Neighbour], random: np.random.Generator) -> Question:
    others = [[each.windows[i] for i in random.permutation(len(each.windows))[:PER_UNIT]] for each in units]
    place = int(random.integers(len(units) + 1))
    shown = [*others[:place], own, *others[place:]]
    texts = (f"Unit {i}:\n" + "\n".join(map(_firing, windows)) for i, windows in enumerate(shown, start=1))
    return Question("\n" + "\n".join(texts), KIND, float(place + 1), own[0])


def _firing(window: Window) -> str:
    return quote(marked(window, [i for i, value in enumerate(window.values) if value]))
