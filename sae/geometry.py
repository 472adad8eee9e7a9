"""How a dictionary's directions lie: how near the next one is to each, and how many dimensions they fill.

    nearest_i = max over j ≠ i of ⟨d_i, d_j⟩ / (‖d_i‖ ‖d_j‖)
    effective rank = exp(−Σ p_k log p_k), p_k = σ_k / Σσ        participation ratio = (Σσ²)² / Σσ⁴

σ are the singular values of the rows at norm 1, not centred. Effective rank: Roy & Vetterli 2007, "The effective rank:
a measure of effective dimensionality". The controls say what any dictionary of that shape has. Cosines are made a block
at a time in float32; those that win are worked out again in float64, as is everything else.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK_COSINES = 2**24
"""Cosines held at a time: 64 MB."""
NONE = -1
"""The neighbour of a direction that has none."""


class Nearest(NamedTuple):
    """The nearest other direction of each."""

    cosine: Float[Tensor, " n"]
    """Signed; NaN for a direction that is left out or zero, and where there is no other one."""
    neighbour: Int[Tensor, " n"]
    """Which one it is; `NONE` where there is none."""


@torch.no_grad()
def nearest(directions: Float[Tensor, "n d"], alive: Bool[Tensor, " n"] | None = None) -> Nearest:
    """The largest cosine of each direction with any other one.

    Args:
        directions: of any norm.
        alive: those to look at; the others are left out on both sides. All of them by default.
    """
    cosine = torch.full((len(directions),), torch.nan, dtype=torch.float64, device=directions.device)
    neighbour = torch.full((len(directions),), NONE, device=directions.device)
    has_direction = torch.linalg.vector_norm(directions, dim=1) > 0
    (kept,) = (has_direction if alive is None else has_direction & alive).nonzero(as_tuple=True)
    if len(kept) < 2:
        return Nearest(cosine, neighbour)
    rows = unit_rows(directions[kept])
    winners = torch.cat([_off_diagonal(block, start).argmax(dim=1) for start, block in cosine_blocks(rows)])
    cosine[kept] = torch.linalg.vecdot(rows, rows[winners])
    neighbour[kept] = kept[winners]
    return Nearest(cosine, neighbour)


@torch.no_grad()
def spectrum(directions: Float[Tensor, "n d"]) -> Float[Tensor, " rank"]:
    """Singular values of the directions at norm 1, largest first; those below 1e-8 of the first are rounding."""
    rows = unit_rows(directions)
    gram = rows.t() @ rows if rows.shape[0] >= rows.shape[1] else rows @ rows.t()
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0)


def effective_rank(singular_values: Float[Tensor, " rank"]) -> float:
    """exp of the entropy of σ / Σσ: their number where all are equal, 1 where one is left."""
    p = singular_values.double() / singular_values.double().sum()
    return torch.special.entr(p).sum().exp().item()


def participation_ratio(singular_values: Float[Tensor, " rank"]) -> float:
    """(Σσ²)² / Σσ⁴: the same extremes, and less in between, since large σ count for more."""
    squares = singular_values.double().square()
    return (squares.sum().square() / squares.square().sum()).item()


def random_like(directions: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "n d"]:
    """As many directions, uniform on the sphere: what the shape alone gives."""
    drawn = torch.randn(directions.shape, generator=generator, dtype=torch.float64)
    return unit_rows(drawn).to(directions)


def permuted_like(directions: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Each coordinate's entries dealt to other directions: what the coordinates' own distributions give."""
    # at norm 1, or the longest rows' entries would make all the others alike
    rows = unit_rows(directions)
    order = torch.rand(directions.shape, generator=generator).argsort(dim=0)
    return unit_rows(rows.gather(0, order.to(directions.device))).to(directions)


def neurons_like(directions: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "d d"]:
    """The coordinates of the site themselves, d of them; nothing is drawn."""
    return torch.eye(directions.shape[1], dtype=directions.dtype, device=directions.device)


CONTROLS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "random": random_like,
    "permuted": permuted_like,
    "neurons": neurons_like,
}
"""What every figure stands beside: from a dictionary's directions and a generator to other directions."""


def unit_rows(directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Each row at norm 1, in float64; rows of zeros stay zero."""
    rows = directions.detach().double()
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def cosine_blocks(rows: Float[Tensor, "n d"]) -> Iterator[tuple[int, Float[Tensor, "block n"]]]:
    """All products of unit rows, some rows at a time, in float32, with the number of a block's first row."""
    single = rows.float()
    size = max(1, BLOCK_COSINES // len(single))
    for start in range(0, len(single), size):
        yield start, single[start : start + size] @ single.t()


def _off_diagonal(block: Float[Tensor, "block n"], start: int) -> Float[Tensor, "block n"]:
    """The same block, in place, in which no row is its own neighbour."""
    own = torch.arange(len(block), device=block.device)
    block[own, own + start] = -torch.inf
    return block
