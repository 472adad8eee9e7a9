"""ReLU + L1: a = ReLU((x − b_dec) W_enc + b_enc), loss FVU + λ / (d_in · unit) · mean_rows Σ_i a_i ‖W_dec[i]‖.

Bricken et al. 2023, transformer-circuits.pub/2023/monosemantic-features; the decoder-norm-weighted penalty is that of
Conerly et al. 2024, transformer-circuits.pub/2024/april-update. λ is in that update's convention: the data scaled to
mean square norm d_in (here about its mean), squared errors summed over d_in.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from sae.encoder import Encoded, EncoderConfig, EncoderSAE
from sae.largest import above
from sae.loss import Phase, Term
from sae.sparse import Pattern

INIT_ROWS = 1024
"""Rows by which encoder columns are first scaled."""


@dataclass(frozen=True, kw_only=True)
class L1Config(EncoderConfig):
    """What variants share that are made sparse by an L1 penalty."""

    l1_coefficient: float = 5.0
    """λ: Conerly et al. 2024."""
    aux_alpha: float = 0.0
    """Weight of the AuxK loss; 0, since the method comes without."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.l1_coefficient < math.inf:
            raise ValueError(
                f"l1_coefficient={self.l1_coefficient} is negative or not finite: choose l1_coefficient >= 0"
            )


@dataclass(frozen=True, kw_only=True)
class ReLUConfig(L1Config):
    """A ReLU SAE with an L1 penalty."""


L = TypeVar("L", bound=L1Config)


class L1(EncoderSAE[L]):
    """All positive pre-activations, at a price that is proportional to them."""

    config_cls = L1Config

    def select(self, pre_acts: Float[Tensor, "rows {self.cfg.d_sae}"], phase: Phase | None) -> Pattern:
        """All that are positive."""
        return above(pre_acts, 0.0, self.room if phase else None)

    def penalties(self, encoded: Encoded, target: Tensor, total: Tensor, phase: Phase) -> Mapping[str, Term]:
        """The mean L1 norm of a row, in the convention of λ."""
        return {"l1": Term(self.l1_norm(encoded.latents.values, encoded), self.cfg.l1_coefficient * phase.sparsity)}

    @torch.no_grad()
    def initialise(
        self, x_sample: Tensor, generator: torch.Generator | None = None, target_sample: Tensor | None = None
    ) -> None:
        """As every SAE, with encoder columns so short that the sample is reconstructed as well as it can be.

        At first half of all latents fire and together overshoot many times. The gradients of that would stay in Adam's
        averages, and make its steps too short, for a thousand steps.
        """
        super().initialise(x_sample, generator, target_sample)
        rows = x_sample[:INIT_ROWS]
        made, wanted = self.decode(self.encode(rows)) - self.b_dec, rows - self.b_dec
        fit = (made * wanted).sum() / made.square().sum()
        self.W_enc.mul_(torch.where(fit > 0, fit, 1.0))

    def l1_norm(self, values: Tensor, encoded: Encoded) -> Tensor:
        """mean_rows Σ_i values_i ‖W_dec[i]‖ / (d_in · unit)."""
        total = self.weighed(values, encoded.latents.pattern).sum()
        return total / (len(encoded.x_centred) * self.cfg.d_in * self.unit)


@final
class ReLU(L1[ReLUConfig]):
    """All positive pre-activations, under an L1 penalty."""

    config_cls = ReLUConfig
