"""Gated: one product decides whether a latent fires, and scaled by latent, how much.

With z = (x − b_dec) W_enc: π = z + b_enc, a = 1[π > 0] · ReLU(exp(r_mag) z + b_mag). The loss is FVU + λ · L1(ReLU(π))
+ gate_alpha · FVU of what ReLU(π) reconstructs through a decoder that is held fixed, so that gates learn although a
step has no gradient. Rajamanoharan et al. 2024, arXiv:2404.16014, section 3.2. λ as in `sae.relu`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae.encoder import Encoded
from sae.loss import Phase, Term
from sae.relu import L1, L1Config
from sae.sparse import Pattern, SparseLatents, squared_error


@dataclass(frozen=True, kw_only=True)
class GatedConfig(L1Config):
    """A gated SAE."""

    gate_alpha: float = 1.0
    """Weight of the gates' own reconstruction: 1 in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gate_alpha < math.inf:
            raise ValueError(f"gate_alpha={self.gate_alpha} is not positive and finite: choose gate_alpha > 0")


@final
class Gated(L1[GatedConfig]):
    """Separate gates and magnitudes from one encoder product."""

    config_cls = GatedConfig

    def __init__(self, cfg: GatedConfig) -> None:
        super().__init__(cfg)
        self.r_mag = nn.Parameter(torch.zeros(cfg.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(cfg.d_sae))

    @property
    def scaled(self) -> tuple[str, ...]:
        """The magnitudes' biases too."""
        return (*super().scaled, "b_mag")

    @property
    def latent_axis(self) -> Mapping[str, int]:
        """Its own parameters too."""
        return {**super().latent_axis, "r_mag": 0, "b_mag": 0}

    def activate(self, pre_acts: Float[Tensor, " kept"], pattern: Pattern) -> Float[Tensor, " kept"]:
        """Magnitudes of the latents whose gate is open."""
        latents = pattern.indices
        z = pre_acts - self.b_enc[latents]
        return torch.relu(z * self.r_mag.exp()[latents] + self.b_mag[latents])

    def penalties(self, encoded: Encoded, target: Tensor, total: Tensor, phase: Phase) -> Mapping[str, Term]:
        """L1 norm of the gates, and what they reconstruct through the decoder held fixed."""
        gates = torch.relu(encoded.pre_acts)
        opened = SparseLatents(gates, encoded.latents.pattern)
        rebuilt = squared_error(opened, self.W_dec.detach(), self.b_dec.detach(), target)
        return {
            "l1": Term(self.l1_norm(gates, encoded), self.cfg.l1_coefficient * phase.sparsity),
            "gate": Term(rebuilt.total / total, self.cfg.gate_alpha),
        }

    @torch.no_grad()
    def point(self, latents: Tensor, encoder_rows: Tensor, decoder_rows: Tensor) -> None:
        """As every SAE, with magnitudes equal to gates."""
        super().point(latents, encoder_rows, decoder_rows)
        self.r_mag.index_fill_(0, latents, 0.0)
        self.b_mag.index_fill_(0, latents, 0.0)

    @torch.no_grad()
    def initialise(
        self, x_sample: Tensor, generator: torch.Generator | None = None, target_sample: Tensor | None = None
    ) -> None:
        """As every SAE, with magnitudes equal to gates."""
        super().initialise(x_sample, generator, target_sample)
        self.r_mag.zero_()
        self.b_mag.zero_()
