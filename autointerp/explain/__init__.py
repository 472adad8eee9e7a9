"""Explainers: from evidence to words. One file and one line in `EXPLAINERS` each."""

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

from autointerp.explain.contrastive import ContrastiveExplainer
from autointerp.explain.default import DefaultExplainer, TopExplainer
from autointerp.explain.ensemble import EnsembleExplainer
from autointerp.explain.noop import NoOpExplainer
from autointerp.explain.output import OutputExplainer
from autointerp.explain.single_token import SingleTokenExplainer
from autointerp.explain.tokens import TokensExplainer
from autointerp.latent import Evidence, Explanation, Unexplained
from autointerp.tools import Tools


@runtime_checkable
class Explainer(Protocol):
    """Says what a latent responds to."""

    wants: ClassVar[frozenset[str]]
    """Which of `autointerp.sample.EVIDENCE` it reads; no other is looked for."""

    async def __call__(self, evidence: Evidence) -> Explanation | Unexplained:
        """Words for the evidence, or why there are none."""
        ...


EXPLAINERS: dict[str, Callable[[Tools], Explainer]] = {
    "contrastive": ContrastiveExplainer.open,
    "default": DefaultExplainer.open,
    "ensemble": EnsembleExplainer.open,
    "noop": NoOpExplainer.open,
    "output": OutputExplainer.open,
    "single_token": SingleTokenExplainer.open,
    "tokens": TokensExplainer.open,
    "top": TopExplainer.open,
}
"""Every explainer by the name used on the command line."""
