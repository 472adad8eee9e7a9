"""JumpReLU: a = z · 1[z > θ], z = (x − b_dec) W_enc + b_enc, with a learned threshold θ for each latent.

What makes it sparse is one of three penalties, in units in which FVU is the error:
- `target`: λ (L0 / target_l0 − 1)², Rajamanoharan et al. 2024, arXiv:2407.14435, appendix;
- `step`: λ L0, the same paper's main one (its data has mean square norm 1: for centred data the same λ);
- `tanh`: λ mean_rows Σ_i tanh(c a_i ‖W_dec[i]‖ / unit), Conerly et al. 2025,
  transformer-circuits.pub/2025/january-update. It pulls on the values too; the pseudo-gradient goes to thresholds only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from sae.encoder import Encoded
from sae.jump import Jump, JumpConfig
from sae.loss import Phase, Term

Sparsity = Literal["target", "step", "tanh"]


@dataclass(frozen=True, kw_only=True)
class JumpReLUConfig(JumpConfig):
    """A JumpReLU SAE."""

    sparsity: Sparsity = "target"
    """Which penalty keeps latents from firing: `target` aims at target_l0; `step` and `tanh` only start from it."""
    l0_coefficient: float | None = None
    """λ; None means 10 for `target`, and 1e-3 for `step` and `tanh`."""
    tanh_scale: float = 4.0
    """c of the tanh penalty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity not in get_args(Sparsity):
            raise ValueError(f"sparsity={self.sparsity!r} is not known: choose {', '.join(get_args(Sparsity))}")
        for name in ("l0_coefficient", "tanh_scale"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} is not positive and finite: choose {name} > 0")

    @property
    def coefficient(self) -> float:
        """λ."""
        return self.l0_coefficient or (10.0 if self.sparsity == "target" else 1e-3)


@final
class JumpReLU(Jump[JumpReLUConfig]):
    """Pre-activations above a learned threshold for each latent."""

    config_cls = JumpReLUConfig

    def penalties(self, encoded: Encoded, target: Tensor, total: Tensor, phase: Phase) -> Mapping[str, Term]:
        """The chosen penalty."""
        name, cost = {
            "target": ("off_target", self.off_target),
            "step": ("l0_cost", self.mean_l0),
            "tanh": ("tanh_cost", self._tanh),
        }[self.cfg.sparsity]
        return {name: Term(cost(encoded), self.cfg.coefficient * phase.sparsity)}

    def _tanh(self, encoded: Encoded) -> Tensor:
        values = self.weighed(encoded.latents.values, encoded.latents.pattern)
        return torch.tanh(self.cfg.tanh_scale / self.unit * values).sum() / len(encoded.x_centred)
