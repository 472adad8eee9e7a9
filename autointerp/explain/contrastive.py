"""The `contrastive` explainer: active contexts beside silent ones that look alike and the nearest latents."""

from dataclasses import dataclass
from typing import ClassVar, final

from autointerp.explain.asking import Asking, Material
from autointerp.explain.shown import active, others, silent
from autointerp.latent import Evidence
from autointerp.prompts import Prompt
from autointerp.prompts.explain_contexts import CONTRASTIVE


@final
@dataclass(frozen=True, kw_only=True)
class ContrastiveExplainer(Asking):
    """Asks what sets the latent apart from what is nearly the same."""

    name: ClassVar[str] = "contrastive"
    wants: ClassVar[frozenset[str]] = frozenset({"windows", "silent", "neighbours"})
    prompt: ClassVar[Prompt] = CONTRASTIVE

    n_silent: int = 10
    """Most silent contexts shown."""
    n_neighbours: int = 3
    """Most latents whose contexts are shown."""
    per_neighbour: int = 3
    """Most contexts of each."""

    def material(self, evidence: Evidence) -> Material | None:
        """All active contexts, and some of both kinds in which it is silent."""
        if not evidence.windows:
            return None
        quiet = evidence.silent[: self.n_silent]
        near = tuple(
            window
            for neighbour in evidence.neighbours[: self.n_neighbours]
            for window in neighbour.windows[: self.per_neighbour]
        )
        windows = (*evidence.windows, *quiet, *near)
        fields = {"contexts": active(evidence.windows), "silent": silent(quiet), "others": others(near)}
        missing = [name for name, found in (("silent contexts", quiet), ("neighbours' contexts", near)) if not found]
        return Material(fields, windows, len(windows), f"without {' and '.join(missing)}" if missing else "")
