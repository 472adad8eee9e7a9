"""The edit that is measured, and what it is compared with: changes that know nothing of the concept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from autointerp.concept import read
from autointerp.steer_config import IN_UNITS, SteerConfig, intervention
from autointerp.sweep.config import Cell, SweepConfig
from sae.contrast import alike
from sae.intervene import Redirected, Running
from store.errors import UsageError

if TYPE_CHECKING:
    from autointerp.subject import Subject

TRIES = 20
"""Attempts at a draw that was not drawn before."""
CLEAN, LATENTS, INSTRUCTION = "clean", "latents", "instruction"
RANDOM_LATENTS, RANDOM_DIRECTION, MEAN_DIFFERENCE = "random latents", "random direction", "mean difference"


@dataclass
class Arms:
    """How each arm of a sweep edits."""

    cfg: SweepConfig
    subject: "Subject"
    density: np.ndarray
    """`[d_sae]` share of the harvested tokens that each latent fires on."""

    def cells(self) -> list[Cell]:
        """Every arm, draw, tier and strength; the clean model first."""
        own = [name for name in EDITING if name != MEAN_DIFFERENCE or self.cfg.concept_texts]
        edited = [
            Cell(arm, draw, tier, strength, self._edit(tier, strength))
            for arm in own
            for draw in range(self.cfg.n_draws if arm in (RANDOM_LATENTS, RANDOM_DIRECTION) else 1)
            for tier in self.cfg.tiers
            for strength in self.cfg.tried
        ]
        unedited = [CLEAN, *([INSTRUCTION] if self.cfg.instruction else [])]
        return [*(Cell(arm, 0, "", 0.0) for arm in unedited), *edited]

    def _edit(self, tier: str, strength: float) -> SteerConfig:
        """The edit of a tier; where it is made everywhere there is no condition."""
        edit = replace(self.cfg.edit, when=tier, strength=(strength,))
        return replace(edit, condition=(), above=(0.0,)) if tier == "always" else edit

    def begin(self, cell: Cell) -> Running | Redirected | None:
        """The edit of a cell, from the beginning of new sequences on; None where nothing is edited."""
        return None if cell.edit is None else EDITING[cell.arm](self, cell, cell.edit)

    def edited(self, cell: Cell) -> tuple[int, ...]:
        """The latents that a cell edits; none where it goes along a direction, or nothing is edited."""
        if cell.arm == RANDOM_LATENTS:
            return self.others[cell.draw]
        return self.cfg.edit.latents if cell.arm == LATENTS else ()

    def own(self, edit: SteerConfig) -> Running:
        """The edit itself."""
        return intervention([edit], self.subject.sae, self.subject.units, self.subject.sink_norm).begin()

    def of_others(self, cell: Cell, edit: SteerConfig) -> Running:
        """The same with other latents; the condition stays, so that as many tokens are edited."""
        condition = edit.condition or (edit.latents if edit.when != "always" else ())
        return self.own(replace(edit, latents=self.others[cell.draw], condition=condition))

    def along_random(self, cell: Cell, edit: SteerConfig) -> Redirected:
        """The same lengths along a random direction."""
        generator = torch.Generator().manual_seed(self.cfg.seed + 1_000 + cell.draw)
        return Redirected(self.own(edit), torch.randn(self.subject.sae.cfg.d_in, generator=generator))

    def along_difference(self, cell: Cell, edit: SteerConfig) -> Redirected:
        """The same lengths towards the concept's mean activation, or away from it where the edit takes away."""
        return Redirected(self.own(edit), self.difference * (-1 if takes_away(edit) else 1))

    @cached_property
    def others(self) -> list[tuple[int, ...]]:
        """Of each draw, latents that fire as often as those that are edited; no two draws are the same latents.

        Raises:
            UsageError: there are too few others.
        """
        density = torch.from_numpy(np.where(self.subject.units > 0, self.density, 0.0))
        own, found = list(self.cfg.edit.latents), {}
        for attempt in range(self.cfg.n_draws * TRIES):
            if len(found) == self.cfg.n_draws:
                break
            try:
                drawn = alike(own, density, self.cfg.seed + attempt, never=self.cfg.edit.condition)
            except ValueError as error:
                raise UsageError(str(error)) from error
            found.setdefault(frozenset(drawn), tuple(drawn))
        if len(found) < self.cfg.n_draws:
            raise UsageError(
                f"{len(found)} different draws of latents that fire as often were found, n_draws={self.cfg.n_draws}: "
                "choose fewer"
            )
        return list(found.values())

    @cached_property
    def difference(self) -> Tensor:
        """`[d_in]` mean activation on the concept's texts less that on the retained ones."""
        _, concept = read(self.subject, self.cfg.concept_texts)
        _, other = read(self.subject, self.cfg.retain)
        return (concept - other).float()


EDITING: Mapping[str, Callable[[Arms, Cell, SteerConfig], Running | Redirected]] = {
    LATENTS: lambda arms, _, edit: arms.own(edit),
    RANDOM_LATENTS: Arms.of_others,
    RANDOM_DIRECTION: Arms.along_random,
    MEAN_DIFFERENCE: Arms.along_difference,
}
"""How each arm that edits does."""


def takes_away(edit: SteerConfig) -> bool:
    """Whether an edit makes its latents less: then a direction towards them is the wrong one to compare with."""
    strength = edit.strength[0]
    by = {"scale": strength < 1, "add": strength < 0, "clamp": strength <= 0}
    return by.get(edit.op, edit.op not in IN_UNITS)
