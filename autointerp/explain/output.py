"""The `output` explainer: the tokens a latent promotes and suppresses, by its weights and when it is clamped in text.

VocabProj and TokenChange of Gur-Arieh et al. 2025, arXiv:2501.08319, section 3, in one prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, final, runtime_checkable

from autointerp.explain.asking import Asking, Material, Words
from autointerp.explain.shown import spelled
from autointerp.latent import Evidence
from autointerp.prompts import Prompt, quote
from autointerp.prompts.explain_output import OUTPUT
from autointerp.steering import TokenChange
from autointerp.tools import Tools
from store.errors import UsageError
from store.latents import Logit, Window

N_TOKENS = 30
"""Most tokens shown of each list of the decoder row's."""
N_CHANGED = 10
"""Tokens shown of each list of what clamping changes (as in the paper)."""
N_CONTEXTS = 16
"""Contexts in which the latent is clamped."""


@runtime_checkable
class Clampable(Protocol):
    """A model in which a latent can be held at a high value, as `Tools.subject`."""

    def token_change(self, latent: int, contexts: Sequence[Window], n: int = 10) -> TokenChange:
        """The `n` next tokens that this makes likelier in the contexts, and less likely.

        Raises:
            UsageError: the latent or the contexts do not allow it.
        """
        ...


@dataclass(frozen=True)
class TokenLists:
    """What a latent does to next tokens."""

    by_name: Mapping[str, Sequence[Logit]]
    windows: tuple[Window, ...]
    """Contexts in which it was clamped."""
    note: str

    @property
    def text(self) -> str:
        """A line for each list that has tokens; empty where none has."""
        lines = {name: spelled(logits) for name, logits in self.by_name.items()}
        shown = "\n".join(f"{name}: {tokens}" for name, tokens in lines.items() if tokens)
        return quote(shown) if shown else ""


@dataclass(frozen=True, kw_only=True)
class OutputAsking(Asking):
    """An explainer that shows tokens, from the model too where there is one."""

    subject: Clampable | None = None
    """Where the latent is clamped; None: its decoder row alone tells."""
    no_subject: str = "no model was given"
    """Why there is none, for the reader."""

    @classmethod
    def open(cls, tools: Tools) -> "OutputAsking":
        """With the language model of `tools`, and the model of the index where there is one."""
        try:
            return cls(llm=tools.llm, subject=tools.subject)
        except UsageError as error:
            return cls(llm=tools.llm, no_subject=str(error).partition(":")[0])

    def lists(self, evidence: Evidence) -> TokenLists:
        """By the decoder row, and by clamping in active contexts."""
        own = {"Raised": evidence.promoted[:N_TOKENS], "Lowered": evidence.suppressed[:N_TOKENS]}
        windows = evidence.windows[:N_CONTEXTS]
        if self.subject is None:
            return TokenLists(own, (), f"logits only, {self.no_subject}")
        try:
            change = self.subject.token_change(evidence.latent, windows, N_CHANGED)
        except UsageError as error:
            return TokenLists(own, (), f"logits only, {str(error).partition(':')[0]}")
        both = own | {"Raised in text": change.promoted, "Lowered in text": change.suppressed}
        return TokenLists(both, windows, "")


@final
@dataclass(frozen=True, kw_only=True)
class OutputExplainer(OutputAsking):
    """From tokens alone; scorers of inputs read its words too, as in the paper."""

    name: ClassVar[str] = "output"
    wants: ClassVar[frozenset[str]] = frozenset({"windows", "logits"})
    prompt: ClassVar[Prompt] = OUTPUT

    def material(self, evidence: Evidence) -> Material | None:
        """The lists of tokens; no context is shown."""
        lists = self.lists(evidence)
        return Material({"tokens": lists.text}, lists.windows, 0, lists.note) if lists.text else None

    def words(self, parts: Mapping[str, str]) -> Words:
        """All of it is of outputs."""
        text = parts["explanation"]
        return Words(text, text, text)
