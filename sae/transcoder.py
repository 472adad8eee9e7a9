"""Transcoders: y_hat = Σ_i a_i(x) · W_dec[i] + b_dec, from what goes into a part of a model to what comes out of it.

a = ReLU(TopK((x − mean x) W_enc + b_enc)). The skip variant adds (x − mean x) W_skip: what is linear in x needs no
latents. Dunefsky et al. 2024, arXiv:2406.11944; TopK and the skip: Paulo et al. 2025, arXiv:2501.18823. The decoder
starts from 0, so that training starts from the mean of y. Targets are brought to the scale of x, so that one learning
rate fits both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae.encoder import DecoderNorm, spread
from sae.ksparse import KSparse, PooledConfig


@dataclass(frozen=True, kw_only=True)
class TranscoderConfig(PooledConfig):
    """A transcoder; by default with TopK."""

    d_out: int
    """Width of the activations it predicts."""
    decoder_norm: DecoderNorm = "free"
    """`free`: decoder rows start from 0 and grow. `unit`: random rows, kept at norm 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_out < 1:
            raise ValueError(f"d_out={self.d_out} is not a width: choose d_out >= 1")

    @property
    def width_out(self) -> int:
        """That of the activations it predicts."""
        return self.d_out

    @classmethod
    def of_widths(cls, widths: Sequence[int]) -> dict[str, Any]:
        """Of what is read and of what is predicted."""
        if len(widths) != 2:
            raise ValueError(f"{len(widths)} hook points, but a transcoder has 2: name what it reads, then its target")
        return {"d_in": widths[0], "d_out": widths[1]}


T = TypeVar("T", bound=TranscoderConfig)


class Mapped(KSparse[T]):
    """From one hook point to another, through the largest latents."""

    config_cls = TranscoderConfig
    x_mean: Tensor
    """Subtracted before the encoder; not trained."""
    y_scale: Tensor
    """Scale of y over that of x: targets are divided by it, reconstructions multiplied."""

    def __init__(self, cfg: T) -> None:
        super().__init__(cfg)
        self.register_buffer("x_mean", torch.zeros(cfg.d_in))
        self.register_buffer("y_scale", torch.ones(()))

    @property
    def scaled(self) -> tuple[str, ...]:
        """The mean of x too."""
        return (*super().scaled, "x_mean")

    @property
    def b_pre(self) -> Tensor:
        """The mean of x."""
        return self.x_mean

    def importance(self) -> None:
        """Latents are chosen by their pre-activations: decoder rows may all be 0."""
        return

    def parts(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """x and its target."""
        return rows[:, : self.cfg.d_in], rows[:, self.cfg.d_in :]

    def enter_target(self, target: Tensor) -> Tensor:
        """At the scale of x."""
        return target / self.y_scale

    def leave(self, x_hat: Tensor) -> Tensor:
        """At the scale of y."""
        return x_hat * self.y_scale

    @torch.no_grad()
    def initialise(
        self, x_sample: Tensor, generator: torch.Generator | None = None, target_sample: Tensor | None = None
    ) -> None:
        """Random unit encoder columns, the centre of the targets as b_dec, and both scales.

        Raises:
            ValueError: there is no target.
        """
        if target_sample is None:
            raise ValueError("a transcoder needs targets: pass pairs (x, y) of rows")
        scale = spread(target_sample) / spread(x_sample)
        self.y_scale.copy_(torch.where(scale > 0, scale, 1.0))
        super().initialise(x_sample, generator, self.enter_target(target_sample))
        self.x_mean.copy_(x_sample.double().mean(dim=0))

    @torch.no_grad()
    def _draw_directions(self, generator: torch.Generator | None) -> None:
        self.W_enc.copy_(self._random_directions(self.cfg.d_in, generator).t())
        self.W_dec.zero_()
        if self.cfg.decoder_norm == "unit":
            self.W_dec.copy_(self._random_directions(self.cfg.d_out, generator))


@final
class Transcoder(Mapped[TranscoderConfig]):
    """From one hook point to another, through the largest latents."""


@dataclass(frozen=True, kw_only=True)
class SkipTranscoderConfig(TranscoderConfig):
    """A transcoder with a linear bypass."""


@final
class SkipTranscoder(Mapped[SkipTranscoderConfig]):
    """A transcoder with a linear map beside the latents."""

    config_cls = SkipTranscoderConfig

    def __init__(self, cfg: SkipTranscoderConfig) -> None:
        super().__init__(cfg)
        self.W_skip = nn.Parameter(torch.zeros(cfg.d_in, cfg.d_out))

    def bypass(self, x: Float[Tensor, "batch {self.cfg.d_in}"]) -> Float[Tensor, "batch {self.cfg.d_out}"]:
        """(x − mean x) W_skip."""
        return (x - self.x_mean) @ self.W_skip

    @torch.no_grad()
    def initialise(
        self, x_sample: Tensor, generator: torch.Generator | None = None, target_sample: Tensor | None = None
    ) -> None:
        """As a transcoder, with nothing on the bypass."""
        super().initialise(x_sample, generator, target_sample)
        self.W_skip.zero_()
