"""What training minimises: FVU + Σ weight · term. FVU has no unit, so neither has any weight."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.sparse import SparseLatents


class Phase(NamedTuple):
    """Where training stands: all that a loss depends on besides the rows and the parameters."""

    dead: Int[Tensor, " n_dead"] | None = None
    """Latents that need reviving; None if there are none."""
    sparsity: float = 1.0
    """Factor on the weight of the sparsity penalty."""
    k: int | None = None
    """Latents per row while k is annealed; None means the config's."""
    generator: torch.Generator | None = None
    """On the CPU, for variants that draw something at every step."""


STEADY = Phase()
"""In the middle of a run, with every latent alive."""


class Term(NamedTuple):
    """A part of the loss."""

    value: Float[Tensor, ""]
    weight: float


class Loss(NamedTuple):
    """What training minimises, and its parts."""

    total: Float[Tensor, ""]
    """The number to differentiate."""
    fvu: Float[Tensor, ""]
    """Fraction of variance unexplained, centred on this batch's mean, without gradient."""
    parts: Mapping[str, Float[Tensor, ""]]
    """The other terms by name, before their weights, without gradient."""
    latents: SparseLatents
    """The kept latents."""
    pre_acts: Float[Tensor, " encoded"]
    """Pre-activations of all latents that were encoded, without gradient."""


def total_of(reconstruction: Float[Tensor, ""], terms: Mapping[str, Term]) -> Float[Tensor, ""]:
    """The loss from its terms; one of weight 0 is reported and not minimised."""
    total = reconstruction
    for term in terms.values():
        total = total + term.weight * term.value if term.weight else total
    return total


def variance(x: Float[Tensor, "batch d"]) -> Float[Tensor, ""]:
    """Σ‖x − mean(x)‖² within one batch."""
    return (x - x.mean(dim=0)).square().sum()
