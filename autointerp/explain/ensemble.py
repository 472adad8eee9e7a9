"""The `ensemble` explainer: contexts and tokens together, and an answer to each of the two questions.

Evidence of inputs and of outputs in one prompt did better on both than either alone (Gur-Arieh et al. 2025,
arXiv:2501.08319, "Ensemble Raw"). The two answers are kept apart: scorers of inputs read the one, of outputs the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from autointerp.explain.asking import Material, Words
from autointerp.explain.output import OutputAsking
from autointerp.explain.shown import NONE, active
from autointerp.latent import Evidence
from autointerp.prompts import Prompt
from autointerp.prompts.explain_output import ENSEMBLE


@final
@dataclass(frozen=True, kw_only=True)
class EnsembleExplainer(OutputAsking):
    """What it responds to, and what it makes the model say."""

    name: ClassVar[str] = "ensemble"
    wants: ClassVar[frozenset[str]] = frozenset({"windows", "logits"})
    prompt: ClassVar[Prompt] = ENSEMBLE
    parts: ClassVar[tuple[str, ...]] = ("input", "output")

    def material(self, evidence: Evidence) -> Material | None:
        """All active contexts and the lists of tokens."""
        if not evidence.windows:
            return None
        lists = self.lists(evidence)
        fields = {"contexts": active(evidence.windows), "tokens": lists.text or NONE}
        return Material(fields, evidence.windows, len(evidence.windows), lists.note)

    def words(self, parts: Mapping[str, str]) -> Words:
        """Both, apart and together."""
        said, does = parts["input"], parts["output"]
        return Words(f"Input: {said} Output: {does}", said, does)
