"""The `simulation` scorers: can the latent's activations be told, token by token, from the explanation alone?

Correlation of simulated and true activations over all tokens of all contexts, after Bills et al. 2023 ("Language models
can explain neurons in language models"). `simulation` asks for numbers in words and works with any judge;
`simulation_logprobs` reads the whole text once and takes the expected digit after each token, which needs a model that
tells log-probabilities of a prompt.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np

from autointerp.latent import Explanation, Item, Judged, Score, Trial
from autointerp.llm import LLM, Reader
from autointerp.parse import between
from autointerp.prompts import FENCE, Prompt, quote
from autointerp.prompts.judging import ALL_AT_ONCE, SIMULATION
from autointerp.scorers.asking import Form, Question, ask
from autointerp.statistics import scored
from autointerp.tools import Tools
from store.latents import Window

CHANCE = 0.0
N_RESAMPLES = 1000
TOP = 9
"""The strongest that a judge can say."""
DIGITS = tuple("0123456789")


@dataclass(frozen=True, kw_only=True)
class _Simulation(ABC):
    """Correlation over the tokens of some contexts."""

    reads_explanation: ClassVar[bool] = True
    wants: ClassVar[frozenset[str]] = frozenset({"items"})
    steers: ClassVar[bool] = False
    prompt: ClassVar[Prompt]

    n_contexts: int = 20
    """Half of them active."""

    @abstractmethod
    async def simulate(self, explanation: Explanation, item: Item) -> list[Judged]:
        """Every token's activation by the explanation."""

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """The correlation; its interval is over contexts, whose tokens go together."""
        parts = await asyncio.gather(*(self.simulate(explanation, item) for item in self._drawn(trial)))
        examples = [judged for part in parts for judged in part]
        score = scored(examples, value="correlation", chance=CHANCE, prompt=self.prompt.tag, seed=trial.seed)
        if score.value is None:
            return score
        return replace(score, interval=over_contexts(parts, trial.seed))

    def _drawn(self, trial: Trial) -> list[Item]:
        """The first of either side in the trial's random order, as many of both."""
        active = [item for item in trial.items if item.active]
        silent = [item for item in trial.items if not item.active]
        n = min(self.n_contexts // 2, len(active), len(silent))
        return [*active[:n], *silent[:n]]


@final
@dataclass(frozen=True, kw_only=True)
class SimulationScorer(_Simulation):
    """Numbers that a judge says."""

    prompt: ClassVar[Prompt] = SIMULATION

    llm: LLM

    @classmethod
    def open(cls, tools: Tools) -> "SimulationScorer":
        """With the job's language model."""
        return cls(llm=tools.llm)

    async def simulate(self, explanation: Explanation, item: Item) -> list[Judged]:
        """One prompt for the context: every token has a number, and its own answer."""
        window = item.window
        questions = [
            Question(one_line(token), item.kind, float(value), window, token=i)
            for i, (token, value) in enumerate(zip(window.tokens, window.values, strict=True))
        ]
        form = Form(
            prompt=SIMULATION,
            read=between(0, TOP),
            schema={"type": "integer", "minimum": 0, "maximum": TOP},
            n_packed=max(len(questions), 1),
            n_contexts=0,
        )
        fields = {"explanation": quote(explanation.input_text), "text": quote(window.text)}
        return await ask(self.llm, form, questions, **fields)


@final
@dataclass(frozen=True, kw_only=True)
class SimulationLogprobsScorer(_Simulation):
    """The expected digit after each token, from one reading of them all."""

    prompt: ClassVar[Prompt] = ALL_AT_ONCE

    reader: Reader

    @classmethod
    def open(cls, tools: Tools) -> "SimulationLogprobsScorer":
        """With the job's reader."""
        return cls(reader=tools.reader)

    async def simulate(self, explanation: Explanation, item: Item) -> list[Judged]:
        """One reading of the context with all tokens' answers left at 0: what comes before does not tell what comes."""
        expected = await self._expected(explanation, item.window)
        return [
            Judged(item.kind, item.window, float(value), float(said), token=i)
            for i, (value, said) in enumerate(zip(item.window.values, expected, strict=True))
        ]

    async def _expected(self, explanation: Explanation, window: Window) -> np.ndarray:
        request = ALL_AT_ONCE.request(max_tokens=1, explanation=quote(explanation.input_text), text=quote(window.text))
        lines = [f"{one_line(token)}\t" for token in window.tokens]
        # Every piece but the first begins with the answer to the one before.
        pieces = ["\n\n".join(m.text for m in request.messages) + lines[0], *(f"0\n{line}" for line in lines[1:])]
        logprobs = np.asarray(await self.reader.choices(pieces, DIGITS), float)
        shares = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
        return shares @ np.arange(len(DIGITS)) / shares.sum(axis=1)


def one_line(token: str) -> str:
    """A token in brackets, as one line that no other token has and that is no fence: backslashes, what cannot be
    printed, and the `<` of a fence are written as in a string of Python."""
    fences = {found.start() for found in FENCE.finditer(token)}
    return f"[{''.join(_spelled(char, i in fences) for i, char in enumerate(token))}]"


def _spelled(char: str, fence: bool) -> str:
    if fence:
        return f"\\x{ord(char):02x}"
    return char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode("ascii")


def over_contexts(parts: Sequence[Sequence[Judged]], seed: int) -> tuple[float, float] | None:
    """95% percentile bootstrap of the correlation, whole contexts resampled; None where it is mostly undefined."""
    sums = np.array([_sums(part) for part in parts])
    random = np.random.default_rng([seed, 6])
    drawn = sums[random.integers(len(sums), size=(N_RESAMPLES, len(sums)))].sum(axis=1)
    n, x, y, xx, yy, xy = drawn.T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y))
    found = found[np.isfinite(found)]
    if len(found) < N_RESAMPLES // 2:
        return None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(np.clip(low, -1, 1)), float(np.clip(high, -1, 1))


def _sums(part: Sequence[Judged]) -> tuple[float, ...]:
    pairs = np.array([(each.truth, each.answer) for each in part if each.answer is not None], float).reshape(-1, 2)
    x, y = pairs.T
    return float(len(x)), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()
