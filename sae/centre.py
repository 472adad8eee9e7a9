"""Centres of a cloud of rows, for b_dec to start from: each under its own name."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Centre = Literal["mean", "geometric_median", "zero"]
MAX_ITERATIONS = 1000
TOLERANCE = 1e-10
"""Relative fall of the sum of distances at which the geometric median is found."""


def mean(x: Float[Tensor, "rows d"]) -> Float[Tensor, " d"]:
    """The arithmetic mean, in float64: the mean of many rows far from the origin loses digits in float32."""
    return x.double().mean(dim=0)


def geometric_median(x: Float[Tensor, "rows d"]) -> Float[Tensor, " d"]:
    """The point with the smallest sum of distances to the rows: Weiszfeld 1937, in float64.

    A row that is hit gets the weight of a distance of 1e-12 of the typical one, so that the iteration can leave it.
    """
    rows = x.double()
    centre = rows.mean(dim=0)
    before = torch.inf
    for _ in range(MAX_ITERATIONS):
        distances = (rows - centre).norm(dim=1)
        total = distances.sum().item()
        if total == 0 or before - total <= TOLERANCE * total:
            break
        before = total
        weights = 1 / distances.clamp_min(1e-12 * total / len(rows))
        centre = weights @ rows / weights.sum()
    return centre


def zero(x: Float[Tensor, "rows d"]) -> Float[Tensor, " d"]:
    """The origin."""
    return x.new_zeros(x.shape[1], dtype=torch.float64)


CENTRES: dict[Centre, Callable[[Tensor], Tensor]] = {"geometric_median": geometric_median, "mean": mean, "zero": zero}
