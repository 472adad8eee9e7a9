"""The `single_token` explainer: for latents that fire on few words, those words alone."""

from dataclasses import dataclass
from typing import ClassVar, final

from autointerp.explain.asking import Asking, Material
from autointerp.explain.shown import counted
from autointerp.explain.tokens import peak_word
from autointerp.latent import Evidence
from autointerp.prompts import Prompt
from autointerp.prompts.explain_contexts import SINGLE_TOKEN


@final
@dataclass(frozen=True, kw_only=True)
class SingleTokenExplainer(Asking):
    """Asks what the words at the peaks share; a tenth of the tokens that their contexts would take."""

    name: ClassVar[str] = "single_token"
    wants: ClassVar[frozenset[str]] = frozenset({"windows"})
    prompt: ClassVar[Prompt] = SINGLE_TOKEN

    n_words: int = 40
    """Most words listed."""

    def material(self, evidence: Evidence) -> Material | None:
        """The commonest words at the peaks, counted."""
        words = [word for window in evidence.windows if (word := peak_word(window))]
        if not words:
            return None
        return Material({"words": counted(words, self.n_words)}, evidence.windows, len(evidence.windows))
