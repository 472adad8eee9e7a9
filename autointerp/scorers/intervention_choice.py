"""The `intervention_choice` scorer: which of three steered models has the leaning that the explanation describes?

For judges that tell no log-probabilities of a prompt. Each question shows continuations of the same few contexts, by
the model steered along the latent, along a random direction and along another latent at equal effect, in random order;
the judge names the one described. Accuracy, chance 1/3. Gur-Arieh et al. 2025, arXiv:2501.08319, section 2.
"""

import asyncio
import json
from typing import ClassVar, NamedTuple, final

import numpy as np

from autointerp.latent import Explanation, Judged, Score, Trial
from autointerp.llm import LLM
from autointerp.parse import objects
from autointerp.prompts import quote
from autointerp.prompts.output_intervention import CHOOSE, STRICTER
from autointerp.scorers.continuations import STEERED, Continuations, InterventionConfig, continuations
from autointerp.scorers.recent import Recent
from autointerp.scorers.twice import ask_twice
from autointerp.statistics import scored
from autointerp.steering import Steerable
from autointerp.tools import Tools

PER_QUESTION = 3
"""Contexts that each model of a question continues."""


LETTERS = "ABC"
CHANCE = 1 / len(LETTERS)
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"model": {"enum": list(LETTERS)}},
        "required": ["model"],
        "additionalProperties": False,
    }
)
MAX_TOKENS = 24


class Question(NamedTuple):
    """Models in the order shown."""

    arms: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    """Of each arm, the continuations."""


@final
class InterventionChoiceScorer:
    """The share of questions in which the judge finds the model that was steered along the latent."""

    reads_explanation: ClassVar[bool] = True
    wants: ClassVar[frozenset[str]] = frozenset({"items"})
    steers: ClassVar[bool] = True

    def __init__(self, subject: Steerable, llm: LLM, cfg: InterventionConfig | None = None) -> None:
        """Steer `subject`, and have `llm` judge what it writes."""
        self.subject, self.llm, self.cfg = subject, llm, cfg or InterventionConfig()
        self._written: Recent[Continuations] = Recent()

    @classmethod
    def open(cls, tools: Tools) -> "InterventionChoiceScorer":
        """With the job's model and language model; a UsageError where there is no model."""
        return cls(tools.subject, tools.llm)

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """The score; questions for which a model could not be steered, or whose answer could not be read, are counted
        as unparsed."""
        key = (trial.latent, trial.seed, trial.items)
        written = await self._written.get(key, lambda: continuations(self.subject, trial, self.cfg))
        asked = await asyncio.gather(*(self._judged(explanation, each) for each in questions(written, trial)))
        return scored(asked, value="accuracy", chance=CHANCE, prompt=CHOOSE.tag, seed=trial.seed, beside=())

    async def _judged(self, explanation: Explanation, question: Question | None) -> Judged:
        if question is None:
            return Judged("unsteered", None, 1.0, None, n_asked=0)
        models = "\n\n".join(
            "\n".join([f"Model {letter}", *map(quote, texts)])
            for letter, texts in zip(LETTERS, question.texts, strict=True)
        )
        request = CHOOSE.request(
            max_tokens=MAX_TOKENS,
            schema=SCHEMA,
            description=quote(explanation.output_text or explanation.text),
            models=models,
        )
        answer = await ask_twice(self.llm, request, STRICTER, _letter)
        chosen = None if answer.value is None else question.arms[LETTERS.index(answer.value)]
        right = None if chosen is None else float(chosen == STEERED)
        return Judged("choice", None, 1.0, right, n_asked=answer.n_asked, call=answer.call, text=chosen or "")


def questions(written: Continuations, trial: Trial) -> list[Question | None]:
    """One for every few contexts, its models in a random order of the trial's own; None where one is missing."""
    random = np.random.default_rng([trial.seed, trial.latent, 13])
    n = len(written.prompts)
    size = min(PER_QUESTION, max(n, 1))
    return [_question(written, range(at, at + size), random) for at in range(0, n - size + 1, size)]


def _question(written: Continuations, places: range, random: np.random.Generator) -> Question | None:
    arms = tuple(list(written.arms)[i] for i in random.permutation(len(written.arms)))
    said = [[written.arms[arm][i] for i in places] for arm in arms]
    texts = tuple(tuple(each.text for each in several if each) for several in said)
    whole = len(arms) == len(LETTERS) and all(len(several) == len(places) for several in texts)
    return Question(arms, texts) if whole else None


def _letter(reply: str) -> str | None:
    """The one letter that the reply names."""
    named = [found.get("model") for found in objects(reply)]
    return next((letter for letter in LETTERS if named and all(each == letter for each in named)), None)
