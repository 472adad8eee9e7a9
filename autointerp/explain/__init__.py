"""Explainers: from evidence to words. One file and one line in `EXPLAINERS` each."""

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

from autointerp.explain.tokens import TokensExplainer
from autointerp.latent import Evidence, Explanation
from autointerp.tools import Tools


@runtime_checkable
class Explainer(Protocol):
    """Says what a latent responds to."""

    wants: ClassVar[frozenset[str]]
    """Which of `autointerp.sample.EVIDENCE` it reads; no other is looked for."""

    async def __call__(self, evidence: Evidence) -> Explanation:
        """Words for the evidence."""
        ...


EXPLAINERS: dict[str, Callable[[Tools], Explainer]] = {"tokens": TokensExplainer.open}
"""Every explainer by the name used on the command line."""
