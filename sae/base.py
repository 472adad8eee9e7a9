"""What every sparse autoencoder shares: x_hat = Σ_i a_i(x) · W_dec[i] + b_dec with few non-zero a_i.

A variant says which latents a row keeps (`select`) and what is minimised (`loss`); everything else is here.
Bricken et al. 2023, transformer-circuits.pub/2023/monosemantic-features; Gao et al. 2024, arXiv:2406.04093.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sae import sparse


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


class SparseLatents(NamedTuple):
    """The kept latents of each row; a latent is active where its value is > 0."""

    values: Float[Tensor, "batch k"]
    """Non-negative, in units of x."""
    indices: Int[Tensor, "batch k"]
    """Which latent each value belongs to; distinct within a row, in no promised order."""

    def dense(self, d_sae: int) -> Float[Tensor, "batch d_sae"]:
        """The same latents as a dense matrix: for tests and small inputs only."""
        return self.values.new_zeros(len(self.values), d_sae).scatter_add(1, self.indices, self.values)

    def select(self, latent: int) -> Float[Tensor, " batch"]:
        """The value of one latent in each row, 0 where it is not kept."""
        return self.values.mul(self.indices == latent).sum(dim=1)


class SAEOutput(NamedTuple):
    """A reconstruction and what it was made from."""

    x_hat: Float[Tensor, "batch d_in"]
    """Reconstruction of x."""
    latents: SparseLatents
    """The kept latents."""
    pre_acts: Float[Tensor, "batch d_sae"] | None
    """(x − b_dec) W_enc + b_enc without gradient; None at inference, where it is dropped."""


class Loss(NamedTuple):
    """What training minimises, and its parts."""

    total: Float[Tensor, ""]
    """The number to differentiate."""
    fvu: Float[Tensor, ""]
    """Fraction of variance unexplained, centred on this batch's mean."""
    aux: Float[Tensor, ""]
    """Auxiliary loss before its weight; 0 where it does not apply."""
    out: SAEOutput
    """The forward pass the loss was computed from."""


class _Kept(NamedTuple):
    """One encoding with what the auxiliary losses reuse."""

    latents: SparseLatents
    pattern: sparse.Pattern
    x_centred: Tensor
    pre_acts: Tensor


class SAE(nn.Module, ABC):
    """Encoder, decoder, and the constraints on them; abstract in which latents are kept and what is minimised."""

    config_cls: ClassVar[type[SAEConfig]] = SAEConfig
    """The config a checkpoint of this variant is read into."""

    def __init__(self, cfg: SAEConfig) -> None:
        super().__init__()
        self.cfg = cfg
        # a transposed view: the encoder product and its sparse gradient both want latents as contiguous rows
        self.W_enc = nn.Parameter(torch.zeros(cfg.d_sae, cfg.d_in).t())
        self.b_enc = nn.Parameter(torch.zeros(cfg.d_sae))
        self.W_dec = nn.Parameter(torch.zeros(cfg.d_sae, cfg.d_in))
        self.b_dec = nn.Parameter(torch.zeros(cfg.d_in))
        self._draw_directions(torch.Generator().manual_seed(0))

    @abstractmethod
    def select(self, pre_acts: Float[Tensor, "batch {self.cfg.d_sae}"]) -> Int[Tensor, "batch k"]:
        """Which latents each row keeps."""

    @abstractmethod
    def loss(
        self, x: Float[Tensor, "batch {self.cfg.d_in}"], dead: Bool[Tensor, " {self.cfg.d_sae}"] | None = None
    ) -> Loss:
        """What training minimises on `x`; `dead` marks the latents that need reviving, None if there are none."""

    def encode(self, x: Float[Tensor, "batch {self.cfg.d_in}"]) -> SparseLatents:
        """The kept latents of each row."""
        return self._keep(x).latents

    def decode(self, latents: SparseLatents) -> Float[Tensor, "batch {self.cfg.d_in}"]:
        """Reconstruction from kept latents."""
        return self._decode(latents.values, sparse.Pattern(latents.indices, self.cfg.d_sae))

    def forward(self, x: Float[Tensor, "batch {self.cfg.d_in}"]) -> SAEOutput:
        """decode(encode(x)), with the latents it went through."""
        return self._output(self._keep(x))

    @torch.no_grad()
    def initialise(
        self, x_sample: Float[Tensor, "rows {self.cfg.d_in}"], generator: torch.Generator | None = None
    ) -> None:
        """Random unit decoder rows, W_enc = W_decᵀ, b_enc = 0, and b_dec = the arithmetic mean of the sample."""
        self._draw_directions(generator)
        self.b_enc.zero_()
        # float64: the mean of many rows far from the origin loses digits in float32
        self.b_dec.copy_(x_sample.double().mean(dim=0))

    @torch.no_grad()
    def constrain_gradients(self) -> None:
        """Remove from each decoder row's gradient the part along the row, which `constrain_weights` would undo."""
        if self.W_dec.grad is not None:
            along = torch.linalg.vecdot(self.W_dec.grad, self.W_dec).unsqueeze(1)
            self.W_dec.grad.addcmul_(along, self.W_dec, value=-1)

    @torch.no_grad()
    def constrain_weights(self) -> None:
        """Scale each decoder row to norm 1."""
        self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True).clamp_min_(1e-12))

    @torch.no_grad()
    def fold_scale(self, scale: float) -> None:
        """Make an SAE that was trained on x · scale work on raw x: new(x) = old(x · scale) / scale.

        ReLU and top-k commute with a positive scale, so only the biases change (divided by `scale`); decoder rows keep
        their unit norm and latents come out in units of raw x, 1/scale of what they were.
        """
        if not scale > 0:
            raise ValueError(f"scale={scale} is not positive: pass the factor that the rows were multiplied by")
        self.b_enc.div_(scale)
        self.b_dec.div_(scale)

    def _keep(self, x: Tensor) -> _Kept:
        with torch.no_grad():
            x_centred = x - self.b_dec
            pre_acts = torch.addmm(self.b_enc, x_centred, self.W_enc)
            pattern = sparse.Pattern(self.select(pre_acts), self.cfg.d_sae)
        kept = sparse.take_pre_acts(x, self.W_enc, self.b_enc, self.b_dec, x_centred, pre_acts, pattern)
        return _Kept(SparseLatents(torch.relu(kept), pattern.indices), pattern, x_centred, pre_acts)

    def _decode(self, values: Tensor, pattern: sparse.Pattern) -> Tensor:
        return sparse.decode(values, self.W_dec, pattern) + self.b_dec

    def _output(self, kept: _Kept) -> SAEOutput:
        x_hat = self._decode(kept.latents.values, kept.pattern)
        return SAEOutput(x_hat, kept.latents, kept.pre_acts if torch.is_grad_enabled() else None)

    @torch.no_grad()
    def _draw_directions(self, generator: torch.Generator | None) -> None:
        # drawn on the generator's device, so that one seed gives one SAE wherever it is trained
        device = generator.device if generator else self.W_dec.device
        shape = (self.cfg.d_sae, self.cfg.d_in)
        self.W_dec.copy_(torch.randn(shape, generator=generator, device=device, dtype=torch.float32))
        self.constrain_weights()
        self.W_enc.copy_(self.W_dec.t())


def batch_fvu(x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]) -> Float[Tensor, ""]:
    """Σ‖x − x_hat‖² / Σ‖x − mean(x)‖² within one batch: a loss. To report a number use `metrics.StreamingFVU`."""
    total = (x - x.mean(dim=0)).square().sum()
    return (x - x_hat).square().sum() / total
