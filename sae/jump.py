"""Thresholds that learn: a = z · 1[z > θ] with a pseudo-gradient for θ from the latents close to it.

d a / d θ ≈ −(θ / ε) K((z − θ) / ε) and d 1[z > θ] / d θ ≈ −(1 / ε) K((z − θ) / ε), K the box of width 1: Rajamanoharan
et al. 2024, arXiv:2407.14435, section 3. Only latents with z > θ − ε / 2 matter to anything, so these are kept.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sae.encoder import Encoded, EncoderConfig, EncoderSAE
from sae.largest import above, row_largest
from sae.loss import Phase
from sae.sparse import Pattern


@dataclass(frozen=True, kw_only=True)
class JumpConfig(EncoderConfig):
    """What variants with learned thresholds share."""

    target_l0: float = 32.0
    """Active latents per row that training aims at, or starts from."""
    bandwidth: float = 0.1
    """ε, in units of the data's scale: how far from its threshold a latent still moves it."""
    aux_alpha: float = 0.0
    """Weight of the AuxK loss; 0, since the method comes without."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_l0", "bandwidth"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} is not positive and finite: choose {name} > 0")
        if self.target_l0 > self.d_sae:
            raise ValueError(f"target_l0={self.target_l0} exceeds d_sae={self.d_sae}: choose target_l0 <= d_sae")


J = TypeVar("J", bound=JumpConfig)


class Jump(EncoderSAE[J]):
    """A threshold for each latent; abstract in what keeps latents from firing."""

    config_cls = JumpConfig

    speeds: ClassVar[Mapping[str, float]] = {"log_threshold": 10.0}
    """Thresholds must follow pre-activations that shrink to half within a short run; at Adam's pace they lag behind,
    and L0 with them."""

    def __init__(self, cfg: J) -> None:
        super().__init__(cfg)
        # a logarithm, in units of the data's scale: thresholds stay positive and have no unit of their own
        self.log_threshold = nn.Parameter(torch.zeros(cfg.d_sae))

    @property
    def threshold(self) -> Float[Tensor, " {self.cfg.d_sae}"]:
        """θ, in units of x."""
        return self.log_threshold.exp() * self.unit

    @property
    def epsilon(self) -> Float[Tensor, ""]:
        """ε, in units of x."""
        return self.cfg.bandwidth * self.unit

    def select(self, pre_acts: Float[Tensor, "rows {self.cfg.d_sae}"], phase: Phase | None) -> Pattern:
        """All above their threshold; in training also those close below it."""
        if phase is None:
            return above(pre_acts, self.threshold)
        return above(pre_acts, self.threshold - self.epsilon / 2, self.room)

    @property
    def latent_axis(self) -> Mapping[str, int]:
        """Its own parameters too."""
        return {**super().latent_axis, "log_threshold": 0}

    def activate(self, pre_acts: Float[Tensor, " kept"], pattern: Pattern) -> Float[Tensor, " kept"]:
        """The pre-activations above their thresholds."""
        return jump(pre_acts, self.threshold[pattern.indices], self.epsilon)

    def mean_l0(self, encoded: Encoded) -> Float[Tensor, ""]:
        """Active latents per row, with the thresholds' pseudo-gradient."""
        pattern = encoded.latents.pattern
        return step(encoded.pre_acts, self.threshold[pattern.indices], self.epsilon).sum() / len(pattern)

    def off_target(self, encoded: Encoded) -> Float[Tensor, ""]:
        """(L0 / target_l0 − 1)²."""
        return (self.mean_l0(encoded) / self.cfg.target_l0 - 1).square()

    @torch.no_grad()
    def initialise(
        self, x_sample: Tensor, generator: torch.Generator | None = None, target_sample: Tensor | None = None
    ) -> None:
        """As every SAE, with one threshold for all latents at which the sample's rows have `target_l0` of them."""
        super().initialise(x_sample, generator, target_sample)
        self.log_threshold.copy_((self._start(x_sample) / self.unit).log())

    @torch.no_grad()
    def point(self, latents: Tensor, encoder_rows: Tensor, decoder_rows: Tensor) -> None:
        """As every SAE, with the mean threshold."""
        super().point(latents, encoder_rows, decoder_rows)
        self.log_threshold.index_copy_(0, latents, self.log_threshold.mean().expand(len(latents)))

    def _start(self, x_sample: Tensor) -> Tensor:
        """The mean over rows of a row's target_l0-th largest pre-activation."""
        k = min(math.ceil(self.cfg.target_l0), self.cfg.d_sae)
        blocks = self.pre_act_blocks(x_sample - self.b_pre)
        smallest = [block.gather(1, row_largest(block, k)).amin(dim=1) for block in blocks]
        return torch.cat(smallest).mean().clamp_min(1e-3 * self.unit)


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, epsilon: Tensor) -> Tensor:
        ctx.save_for_backward(z, theta, epsilon)
        return z * (z > theta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        z, theta, epsilon = ctx.saved_tensors
        (grad,) = grad_outputs
        return grad * (z > theta), -grad * theta * box(z, theta, epsilon), None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, epsilon: Tensor) -> Tensor:
        ctx.save_for_backward(z, theta, epsilon)
        return (z > theta).to(z.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        z, theta, epsilon = ctx.saved_tensors
        return None, -grad_outputs[0] * box(z, theta, epsilon), None


def jump(
    z: Float[Tensor, " kept"], theta: Float[Tensor, " kept"], epsilon: Float[Tensor, ""]
) -> Float[Tensor, " kept"]:
    """z · 1[z > θ], with its gradient in z and the pseudo-gradient in θ."""
    return _Jump.apply(z, theta, epsilon)  # pyright: ignore[reportReturnType]


def step(
    z: Float[Tensor, " kept"], theta: Float[Tensor, " kept"], epsilon: Float[Tensor, ""]
) -> Float[Tensor, " kept"]:
    """1[z > θ], with no gradient in z and the pseudo-gradient in θ."""
    return _Step.apply(z, theta, epsilon)  # pyright: ignore[reportReturnType]


def box(z: Tensor, theta: Tensor, epsilon: Tensor) -> Tensor:
    """K((z − θ) / ε) / ε: 1 / ε within ε / 2 of the threshold, 0 elsewhere."""
    return ((z - theta).abs() < epsilon / 2) / epsilon
