"""The `detection` and `fuzzing` scorers: does a judge who reads the explanation tell active contexts from silent ones?

Detection shows contexts plain, fuzzing with marks on the tokens that fire, or in silent contexts on as many at such
places. Balanced accuracy, after Paulo et al. 2024, arXiv:2410.13928, section 3.
"""

from dataclasses import dataclass
from typing import ClassVar, final

from autointerp.latent import Explanation, Item, Score, Trial
from autointerp.llm import LLM
from autointerp.parse import yes_or_no
from autointerp.prompts import Prompt, marked, quote
from autointerp.prompts.judging import DETECTION, FUZZING
from autointerp.scorers.asking import Form, Question, ask
from autointerp.statistics import scored
from autointerp.tools import Tools

CHANCE = 0.5
BOOLEAN = {"type": "boolean"}


@dataclass(frozen=True, kw_only=True)
class _YesOrNo:
    """One yes or no for every item of a trial."""

    reads_explanation: ClassVar[bool] = True
    wants: ClassVar[frozenset[str]] = frozenset({"items"})
    steers: ClassVar[bool] = False
    prompt: ClassVar[Prompt]

    llm: LLM
    n_packed: int = 25
    """Most contexts of one prompt."""
    top_logprobs: int = 0
    """Alternatives asked for, from which the judge's belief is computed."""

    @classmethod
    def open(cls, tools: Tools) -> "_YesOrNo":
        """With the job's language model."""
        return cls(llm=tools.llm, n_packed=tools.cfg.per_prompt, top_logprobs=tools.cfg.top_logprobs)

    def shown(self, item: Item) -> str:
        """The item as the judge sees it."""
        raise NotImplementedError

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        """Balanced accuracy of the judge's answers."""
        questions = [
            Question(quote(self.shown(item)), item.kind, float(item.active), item.window) for item in trial.items
        ]
        form = Form(
            prompt=self.prompt,
            read=yes_or_no,
            schema=BOOLEAN,
            n_packed=self.n_packed,
            top_logprobs=self.top_logprobs,
        )
        examples = await ask(self.llm, form, questions, explanation=quote(explanation.input_text))
        return scored(
            examples,
            value="balanced_accuracy",
            chance=CHANCE,
            base_rate=trial.base_rate,
            prompt=self.prompt.tag,
            seed=trial.seed,
        )


@final
@dataclass(frozen=True, kw_only=True)
class DetectionScorer(_YesOrNo):
    """Contexts without marks."""

    prompt: ClassVar[Prompt] = DETECTION

    def shown(self, item: Item) -> str:
        """The text alone: it must tell by itself."""
        return marked(item.window, ())


@final
@dataclass(frozen=True, kw_only=True)
class FuzzingScorer(_YesOrNo):
    """Contexts with marks, of which the judge must say whether they are right."""

    prompt: ClassVar[Prompt] = FUZZING

    def shown(self, item: Item) -> str:
        """With the item's marks."""
        return marked(item.window, item.marked)
