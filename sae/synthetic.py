"""Toy superposition: x = c · F with n_features unit rows F in d_in < n_features dimensions and sparse c ≥ 0.

Elhage et al. 2022, transformer-circuits.pub/2022/toy_model; Sharkey et al. 2022, "Taking features out of superposition
with sparse autoencoders". The truth is known, so recovery can be measured: mean max cosine similarity (MMCS).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SuperpositionConfig:
    """More features than dimensions, few of them present at a time."""

    n_features: int = 64
    """True features."""
    d_in: int = 32
    """Dimensions they share."""
    mean_active: float = 3.0
    """Expected number of features present in a row."""
    min_coefficient: float = 0.5
    """Coefficients of present features are uniform on [min_coefficient, 1.5]."""

    def __post_init__(self) -> None:
        if not 1 <= self.d_in < self.n_features:
            raise ValueError(f"d_in={self.d_in} leaves n_features={self.n_features} room: choose d_in < n_features")
        if not 0 < self.mean_active <= self.n_features:
            raise ValueError(
                f"mean_active={self.mean_active} is not in (0, n_features={self.n_features}]: choose it so"
            )
        if not 0 <= self.min_coefficient <= 1.5:
            raise ValueError(f"min_coefficient={self.min_coefficient} is not in [0, 1.5]: choose it so")


class Superposed(NamedTuple):
    """Rows and what they were made of."""

    x: Float[Tensor, "n d_in"]
    coefficients: Float[Tensor, "n n_features"]


class Superposition:
    """A fixed set of feature directions to sample from."""

    def __init__(self, cfg: SuperpositionConfig, generator: torch.Generator) -> None:
        self.cfg = cfg
        # drawn in float64: the same seed in float32 draws an SAE's initial decoder, and the answer with it
        directions = torch.randn(cfg.n_features, cfg.d_in, generator=generator, dtype=torch.float64)
        self.features: Float[Tensor, "n_features d_in"] = (directions / directions.norm(dim=1, keepdim=True)).float()
        """The unit directions to be recovered."""

    def sample(self, n: int, generator: torch.Generator) -> Superposed:
        """`n` independent rows."""
        shape = (n, self.cfg.n_features)
        present = torch.rand(shape, generator=generator) < self.cfg.mean_active / self.cfg.n_features
        low, high = self.cfg.min_coefficient, 1.5
        coefficients = present * (low + (high - low) * torch.rand(shape, generator=generator))
        return Superposed(coefficients @ self.features, coefficients)


def mean_max_cosine(W_dec: Float[Tensor, "d_sae d_in"], features: Float[Tensor, "n_features d_in"]) -> float:
    """Mean over true features of the largest cosine with any decoder row; negative matches do not count."""
    truth, found = (F.normalize(rows.detach().double(), dim=1) for rows in (features, W_dec))
    return (truth @ found.t()).max(dim=1).values.mean().item()
