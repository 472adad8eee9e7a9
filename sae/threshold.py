"""Threshold SAE: a = σ_τ((x − b_dec) W_enc), σ_τ(z) = z · 1[z > τ], one τ for each latent and no encoder bias.

The single-layer SAE of the atoms theory, which recovers K-sparse atoms where thresholds lie between what other atoms
leak and the smallest true coefficient: Hu et al. 2025, arXiv:2509.20784, where nothing is subtracted from x. How its
thresholds are trained is not given there; here as JumpReLU's are, towards a number of active latents:
FVU + λ (L0 / target_l0 − 1)².
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from sae.encoder import Encoded
from sae.jump import Jump, JumpConfig
from sae.loss import Phase, Term


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig(JumpConfig):
    """A threshold SAE."""

    l0_coefficient: float = 10.0
    """λ: how much it costs to be off target."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.l0_coefficient < math.inf:
            raise ValueError(
                f"l0_coefficient={self.l0_coefficient} is not positive and finite: choose l0_coefficient > 0"
            )


@final
class Threshold(Jump[ThresholdConfig]):
    """One linear layer and a threshold for each latent, with a target for L0."""

    config_cls = ThresholdConfig

    def __init__(self, cfg: ThresholdConfig) -> None:
        super().__init__(cfg)
        # the threshold is the only thing that decides: an encoder bias would be a second one
        self.b_enc.requires_grad_(False)

    def penalties(self, encoded: Encoded, target: Tensor, total: Tensor, phase: Phase) -> Mapping[str, Term]:
        """How far L0 is from its target."""
        return {"off_target": Term(self.off_target(encoded), self.cfg.l0_coefficient * phase.sparsity)}
