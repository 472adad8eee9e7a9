"""Explainers: from evidence to words. One file and one line in `EXPLAINERS` each."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from autointerp.explain.tokens import TokensExplainer
from autointerp.latent import Evidence, Explanation


@runtime_checkable
class Explainer(Protocol):
    """Says what a latent responds to."""

    async def __call__(self, evidence: Evidence) -> Explanation:
        """Words for the evidence."""
        ...


EXPLAINERS: dict[str, Callable[[], Explainer]] = {"tokens": TokensExplainer}
"""Every explainer by the name used on the command line."""
