"""What every dictionary of latents shares: x_hat = Σ_i a_i(x) · W_dec[i] + b_dec with few a_i that are not 0.

A variant says how a row is encoded; those trained by gradients build on `sae.encoder`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae import sparse
from sae.sparse import SparseLatents


@dataclass(frozen=True, kw_only=True)
class SAEConfig:
    """Widths of a sparse autoencoder."""

    d_in: int
    """Width of the activations it reads."""
    d_sae: int
    """Number of latents."""

    def __post_init__(self) -> None:
        for name in ("d_in", "d_sae"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not a width: choose {name} >= 1")

    @property
    def width_out(self) -> int:
        """Width of what is reconstructed."""
        return self.d_in

    @classmethod
    def of_widths(cls, widths: Sequence[int]) -> dict[str, Any]:
        """The settings that follow from the widths of the hook points that are read, in their order.

        Raises:
            ValueError: the variant reads another number of hook points.
        """
        if len(widths) != 1:
            raise ValueError(f"{len(widths)} hook points, but this variant reads 1: name one")
        return {"d_in": widths[0]}


C = TypeVar("C", bound=SAEConfig)


class SAEOutput(NamedTuple):
    """A reconstruction and what it was made from."""

    x_hat: Float[Tensor, "batch d_out"]
    """Reconstruction of x, or of the target where a variant maps x to something else."""
    latents: SparseLatents
    """The kept latents."""


class SAE(nn.Module, ABC, Generic[C]):
    """A dictionary: `encode` picks and weighs its rows, `decode` adds them up."""

    config_cls: ClassVar[type[SAEConfig]] = SAEConfig
    """The config a checkpoint of this variant is read into."""
    speeds: ClassVar[Mapping[str, float]] = {}
    """Parameters that take steps of another length than the rest, and how many times it."""
    unit: Tensor
    """The scale of the data: sqrt of the mean square deviation of an entry of x. Sparsity costs are in this unit."""

    def __init__(self, cfg: C) -> None:
        super().__init__()
        self.cfg = cfg
        self.W_dec = nn.Parameter(torch.zeros(cfg.d_sae, cfg.width_out))
        self.b_dec = nn.Parameter(torch.zeros(cfg.width_out))
        self.register_buffer("unit", torch.ones(()))

    @property
    def scaled(self) -> tuple[str, ...]:
        """Names of the parameters and buffers that are in units of x; all others have no unit."""
        return ("b_dec",)

    @abstractmethod
    def encode(self, x: Float[Tensor, "batch {self.cfg.d_in}"]) -> SparseLatents:
        """The kept latents of each row."""

    def decode(self, latents: SparseLatents) -> Float[Tensor, "batch {self.cfg.width_out}"]:
        """Reconstruction from kept latents."""
        return self.leave(sparse.decode(latents.values, self.W_dec, latents.pattern) + self.b_dec)

    def parts(self, rows: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """What `rows` of all hook points side by side, in their order, are to this SAE: x, or x and its target."""
        return rows

    def forward(self, x: Float[Tensor, "batch {self.cfg.d_in}"]) -> SAEOutput:
        """decode(encode(x)) plus what bypasses the latents, with the latents it went through."""
        latents = self.encode(x)
        x_hat, beside = self.decode(latents), self.bypass(self.enter(x))
        return SAEOutput(x_hat if beside is None else x_hat + self.leave(beside), latents)

    def enter(self, x: Tensor) -> Tensor:
        """x as the encoder reads it, where parts of it are brought to one scale."""
        return x

    def enter_target(self, target: Tensor) -> Tensor:
        """A target at the scale at which it is reconstructed: where x is its own target, that of x."""
        return self.enter(target)

    def leave(self, x_hat: Tensor) -> Tensor:
        """A reconstruction at the scale of what it stands for."""
        return x_hat

    def bypass(self, x: Tensor) -> Tensor | None:
        """What `x`, as the encoder reads it, adds to the reconstruction without going through latents."""
        return None

    @torch.no_grad()
    def fold_scale(self, scale: float) -> None:
        """Make an SAE that was trained on x · scale work on raw x: new(x) = old(x · scale) / scale.

        All that picks latents commutes with a positive scale, so only what is in units of x changes: biases and
        thresholds are divided by `scale`. Decoder rows keep their norm and latents come out in units of raw x.
        Where x is mapped to a target, that was multiplied by the same factor.
        """
        if not scale > 0:
            raise ValueError(f"scale={scale} is not positive: pass the factor that the rows were multiplied by")
        for name in (*self.scaled, "unit"):
            getattr(self, name).div_(scale)
