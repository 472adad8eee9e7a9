"""A language model that rates what was written: how much of the concept is in it, and how it reads, 0 to 2 each.

As two of the three ratings of AxBench (Wu et al. 2025, arXiv:2501.17148), each asked on its own, so that one need not
read the other's answer; their harmonic mean stands beside them. The third, of following an instruction, has no place
where prompts are continued.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

from autointerp.llm import LLM
from autointerp.parse import between
from autointerp.prompts import Prompt, quote
from autointerp.prompts.steered import CONCEPT, FLUENCY
from autointerp.scorers.asking import Form, Question, ask

MOST = 2
"""The best rating."""
PER_PROMPT = 10
"""Texts that are rated in one prompt: judges lose count of longer lists."""
RATED: Mapping[str, Prompt] = {"judge_concept": CONCEPT, "judge_fluency": FLUENCY}
"""What is asked about each text, by the name of the measure."""
BOTH = "judge"
"""The harmonic mean of the two: high only where a text has the concept and can be read."""


@final
@dataclass(frozen=True)
class Judge:
    """Rates texts."""

    llm: LLM
    concept: str
    """In words."""

    def rate(self, texts: Sequence[str]) -> dict[str, list[float | None]]:
        """Every measure of every text; None where the reply could not be read, and for a text of nothing.

        Raises:
            UsageError: a limit of spending is reached, or the service does not answer.
        """
        # In a thread of its own: a notebook has an event loop in this one.
        with ThreadPoolExecutor(1) as own:
            return own.submit(asyncio.run, self._rate(texts)).result()

    async def _rate(self, texts: Sequence[str]) -> dict[str, list[float | None]]:
        there = [i for i, text in enumerate(texts) if text.strip()]
        questions = [Question(quote(texts[i]), "steered", 0.0) for i in there]
        answers = await asyncio.gather(
            *(ask(self.llm, _form(prompt), questions, **self._fields(prompt)) for prompt in RATED.values())
        )
        found: dict[str, list[float | None]] = {name: [None] * len(texts) for name in (*RATED, BOTH)}
        for name, judged in zip(RATED, answers, strict=True):
            for i, each in zip(there, judged, strict=True):
                found[name][i] = each.answer
        found[BOTH] = [harmonic(*pair) for pair in zip(*(found[name] for name in RATED), strict=True)]
        return found

    def _fields(self, prompt: Prompt) -> dict[str, str]:
        return {"concept": quote(self.concept)} if "{concept}" in prompt.template else {}


def harmonic(*ratings: float | None) -> float | None:
    """The harmonic mean, 0 where one of them is; None where one is not known."""
    known = [each for each in ratings if each is not None]
    if len(known) < len(ratings):
        return None
    return len(known) / sum(1 / each for each in known) if all(known) else 0.0


def _form(prompt: Prompt) -> Form:
    return Form(prompt=prompt, read=between(0, MOST), schema={"type": "integer"}, n_packed=PER_PROMPT)
