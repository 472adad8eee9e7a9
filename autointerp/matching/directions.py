"""Cosines of two dictionaries' directions, a block at a time, where both are of the same space."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from activations.hook_point import NAME, HookPoint
from autointerp.index.neighbours import directions_of
from autointerp.matching.products import ENTRIES
from sae import checkpoint
from sae.decoder_match import random_alike
from sae.geometry import unit_rows
from store.run import Run, find_run

NULL = "random directions with the mean and covariance of b's"
SIDES = ("decoder", "encoder")


class Directions(NamedTuple):
    """Unit rows of both dictionaries; NaN for a latent that is dead or has no direction."""

    a: Float[Tensor, "d_a d_in"]
    b: Float[Tensor, "d_b d_in"]

    def blocks(self) -> Iterator[tuple[int, Float[Tensor, "block d_b"]]]:
        """All cosines in float64, some of a's latents at a time, with the first of them; NaN where a side has none."""
        size = max(1, ENTRIES // len(self.b))
        for start in range(0, len(self.a), size):
            yield start, self.a[start : start + size] @ self.b.t()

    def randomised(self, generator: torch.Generator) -> "Directions":
        """The same a, beside random directions in place of b's."""
        alive = self.b.isfinite().all(dim=1)
        drawn = torch.full_like(self.b, torch.nan)
        if alive.any():
            drawn[alive] = random_alike(self.b[alive], generator)
        return Directions(self.a, drawn)


def why_no_cosine(a: Run, b: Run) -> str:
    """Why two indexes' directions cannot be compared; empty if they can.

    Raises:
        UsageError: an SAE or a harvest that an index is of is no longer there.
    """
    without = [run.id for run in (a, b) if "sae" not in run.inputs]
    if without:
        return f"index {' and '.join(without)} was made without a dictionary"
    (model_a, hook_a), (model_b, hook_b) = (_site(run) for run in (a, b))
    if model_a != model_b:
        return "the dictionaries are of different models, whose coordinates have nothing to do with each other"
    both_residual = all(_in_residual_basis(hook) for hook in (hook_a, hook_b))
    if hook_a != hook_b and not both_residual:
        return f"{hook_a} and {hook_b} are not coordinates of the same space"
    return ""


def load_directions(a: Run, b: Run, n_fired_a: Tensor, n_fired_b: Tensor) -> dict[str, Directions]:
    """By side: `decoder`, and `encoder` where both dictionaries have one."""
    found = [
        {side: _live(rows, n_fired) for side, rows in directions_of(checkpoint.load(_sae_run(run).folder)).items()}
        for run, n_fired in ((a, n_fired_a), (b, n_fired_b))
    ]
    return {side: Directions(found[0][side], found[1][side]) for side in SIDES if all(side in each for each in found)}


def _live(rows: Tensor, n_fired: Tensor) -> Tensor:
    """Dead latents keep the directions they began with, which says nothing."""
    unit = unit_rows(rows.cpu())
    unit[(n_fired == 0) | (unit.norm(dim=1) == 0)] = torch.nan
    return unit


def _sae_run(run: Run) -> Run:
    return find_run(run.root, run.inputs["sae"], "sae")


def _site(run: Run) -> tuple[object, str]:
    """What identifies the model, and the hook point."""
    harvest = find_run(run.root, run.inputs["activations"], "activations")
    return harvest.same.get("model"), _sae_run(run).config["hook_point"]


def _in_residual_basis(name: str) -> bool:
    match = NAME.match(name)
    return bool(match) and HookPoint(int(match["layer"]), match["site"]).in_residual_basis
