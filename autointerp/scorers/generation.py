"""The `generation` scorer: does the latent fire in texts that a language model writes from the explanation alone?

As many texts are written from a description that says nothing, and the score compares the shares that fire; no text
comes from the corpus, so nothing can leak. The input score of Gur-Arieh et al. 2025, arXiv:2501.08319, section 2, with
firing in the place of the mean of peaks, and texts to compare with that are of the same lengths.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np

from autointerp.latent import Explanation, Judged, Score, Trial
from autointerp.llm import LLM
from autointerp.parse import objects
from autointerp.prompts import quote
from autointerp.prompts.output_generation import GENERIC, STRICTER, WRITE
from autointerp.scorers.recent import Recent
from autointerp.scorers.twice import Answer, ask_twice
from autointerp.statistics import scored
from autointerp.steering import Steerable
from autointerp.tools import Tools

CHANCE = 0.5
"""Of balanced accuracy, (1 + share that fires − share of the others that fires) / 2."""
TEXT_TOKENS = 64
"""Of a written text that are read: twice what is asked for."""
WRITTEN, GENERAL = "written", "general"


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """What is written."""

    n_texts: int = 10
    """From the explanation, and as many to compare with."""
    temperature: float = 0.7
    """Texts that are all alike would be one observation."""
    max_tokens: int = 1000
    """Of the reply that holds them all."""


@final
class GenerationScorer:
    """The share of written texts in which the latent fires, against that of general ones."""

    reads_explanation: ClassVar[bool] = True
    wants: ClassVar[frozenset[str]] = frozenset()
    steers: ClassVar[bool] = False

    def __init__(self, subject: Steerable, llm: LLM, cfg: GenerationConfig | None = None) -> None:
        """Have `llm` write, and `subject` read."""
        self.subject, self.llm, self.cfg = subject, llm, cfg or GenerationConfig()
        self._general: Recent[Answer[tuple[str, ...]]] = Recent()

    @classmethod
    def open(cls, tools: Tools) -> "GenerationScorer":
        """With the job's model and language model; a UsageError where there is no model."""
        return cls(tools.subject, tools.llm)

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """The score; texts that were asked for and not written are counted as unparsed."""
        key = (trial.latent, trial.seed)
        written, general = await asyncio.gather(
            self._write(explanation.input_text, trial.seed),
            self._general.get(key, lambda: self._write(GENERIC, trial.seed)),
        )
        examples = await asyncio.to_thread(self._judged, trial.latent, written, general)
        return scored(examples, value="balanced_accuracy", chance=CHANCE, prompt=WRITE.tag, seed=trial.seed)

    async def _write(self, description: str, seed: int) -> Answer[tuple[str, ...]]:
        request = WRITE.request(
            max_tokens=self.cfg.max_tokens,
            schema=schema_of(self.cfg.n_texts),
            n=str(self.cfg.n_texts),
            description=quote(description),
        )
        request = replace(request, temperature=self.cfg.temperature, seed=seed)
        return await ask_twice(self.llm, request, STRICTER, self._texts)

    def _texts(self, reply: str) -> tuple[str, ...] | None:
        """The texts of a reply, at most as many as were asked for; None where it has none."""
        for found in objects(reply):
            texts = found.get("texts")
            if isinstance(texts, list):
                # A text of dots is the shape that was asked for, sent back.
                kept = [text.strip() for text in texts if isinstance(text, str) and any(map(str.isalnum, text))]
                return tuple(dict.fromkeys(kept))[: self.cfg.n_texts] or None
        return None

    def _judged(
        self, latent: int, written: Answer[tuple[str, ...]], general: Answer[tuple[str, ...]]
    ) -> tuple[Judged, ...]:
        pairs = of_equal_lengths(self.subject, written.value or (), general.value or ())
        rows: list[Judged] = []
        for kind, truth, answer, texts in zip((WRITTEN, GENERAL), (1.0, 0.0), (written, general), pairs, strict=True):
            fired = self.subject.fires(latent, texts) if texts else ()
            told = [*(float(each) for each in fired), *[None] * (self.cfg.n_texts - len(texts))]
            said = [*texts, *[""] * (self.cfg.n_texts - len(texts))]
            rows += [
                Judged(kind, None, truth, fires, n_asked=answer.n_asked, call=answer.call, text=text)
                for fires, text in zip(told, said, strict=True)
            ]
        return tuple(rows)


def schema_of(n_texts: int) -> str:
    """JSON Schema of a reply with so many texts, no fewer and no more: a model in process can be held to it then."""
    texts = {"type": "array", "items": {"type": "string"}, "minItems": n_texts, "maxItems": n_texts}
    closed = {"type": "object", "properties": {"texts": texts}, "required": ["texts"], "additionalProperties": False}
    return json.dumps(closed)


def of_equal_lengths(subject: Steerable, one: Sequence[str], other: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both kinds of texts from short to long, the n-th of each cut to the shorter one's tokens: a latent has more
    places to fire in a longer text. Of texts that have no partner, the start."""
    starts = [[subject.cut(text, TEXT_TOKENS) for text in texts] for texts in (one, other)]
    sides = [sorted(texts, key=lambda text: (subject.n_tokens([text])[0], text)) for texts in starts]
    lengths = np.array([subject.n_tokens(texts[: min(len(one), len(other))]) for texts in sides])
    for texts in sides:
        for i, n in enumerate(lengths.min(axis=0).tolist() if lengths.size else ()):
            texts[i] = subject.cut(texts[i], n)
    return sides[0], sides[1]
