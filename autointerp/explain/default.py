"""The `default` and `top` explainers: contexts, marked and with strengths, from all of the range or its upper end.

Contexts of all quantiles score better than top ones alone, 20 to 40 of about 32 tokens are enough, and a chain of
thought does not pay (Paulo et al. 2024, arXiv:2410.13928).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from autointerp.explain.asking import Asking, Material
from autointerp.explain.shown import active
from autointerp.latent import Evidence
from autointerp.prompts import Prompt
from autointerp.prompts.explain_contexts import DEFAULT, TOP
from store.latents import Window


@final
@dataclass(frozen=True, kw_only=True)
class DefaultExplainer(Asking):
    """From contexts of every strength."""

    name: ClassVar[str] = "default"
    wants: ClassVar[frozenset[str]] = frozenset({"windows"})
    prompt: ClassVar[Prompt] = DEFAULT

    def material(self, evidence: Evidence) -> Material | None:
        """All active contexts."""
        return of_contexts(evidence.windows)


@final
@dataclass(frozen=True, kw_only=True)
class TopExplainer(Asking):
    """From the strongest contexts: for comparison, as others do it."""

    name: ClassVar[str] = "top"
    wants: ClassVar[frozenset[str]] = frozenset({"top"})
    prompt: ClassVar[Prompt] = TOP

    def material(self, evidence: Evidence) -> Material | None:
        """The contexts of the highest peaks."""
        return of_contexts(evidence.top)


def of_contexts(windows: Sequence[Window]) -> Material | None:
    """`windows` alone; None where there is none."""
    return Material({"contexts": active(windows)}, tuple(windows), len(windows)) if windows else None
