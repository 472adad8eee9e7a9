"""Discrete codes in training: of the k kept latents, each is on at one of a few levels, a = s_i · q, q in 1..levels.

q = clamp(round(z / s_i), 1, levels) where z > 0. Backward, z gets the gradient of a as if nothing had been rounded or
clamped: the straight-through estimator, Bengio et al. 2013, arXiv:1308.3432. The step size s_i gets that of Esser et
al. 2020, arXiv:1902.08153, q − z / s_i within the levels and q beyond them, without the factor they scale it by. One
level makes latents binary. So a row is exactly the list of its codes, latent · levels + q − 1, whose bits can be
counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sae.codes import NULL, Coded, count_codes, entropy_bits
from sae.encoder import Encoded
from sae.ksparse import KSparse, PooledConfig
from sae.loss import STEADY, Phase, Term
from sae.sparse import Pattern, SparseLatents


@dataclass(frozen=True, kw_only=True)
class DiscreteConfig(PooledConfig):
    """An SAE with discrete latents."""

    levels: int = 1
    """Values that an active latent can have: 1 is binary."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels < 1:
            raise ValueError(f"levels={self.levels} leaves an active latent no value: choose levels >= 1")


@final
class Discrete(KSparse[DiscreteConfig], Coded):
    """The largest latents, each on at one of a few levels."""

    config_cls = DiscreteConfig

    def __init__(self, cfg: DiscreteConfig) -> None:
        super().__init__(cfg)
        # a logarithm, in units of the data's scale: step sizes stay positive and have no unit of their own
        self.log_step = nn.Parameter(torch.zeros(cfg.d_sae))

    @property
    def step_size(self) -> Float[Tensor, " {self.cfg.d_sae}"]:
        """s, in units of x."""
        return self.log_step.exp() * self.unit

    @property
    def n_codes(self) -> int:
        """A code for every latent and level."""
        return self.cfg.d_sae * self.cfg.levels

    @property
    def latent_axis(self) -> Mapping[str, int]:
        """Its own parameters too."""
        return {**super().latent_axis, "log_step": 0}

    def activate(self, pre_acts: Float[Tensor, " kept"], pattern: Pattern) -> Float[Tensor, " kept"]:
        """s_i · q of the kept latents, 0 where z is not positive."""
        return _Quantise.apply(pre_acts, self.step_size[pattern.indices], self.cfg.levels)  # pyright: ignore

    def penalties(self, encoded: Encoded, target: Tensor, total: Tensor, phase: Phase) -> Mapping[str, Term]:
        """Nothing that is minimised; bits per row, estimated within the batch, are reported."""
        with torch.no_grad():
            counts = count_codes(self._code_of_each(encoded.latents), self.n_codes)
            return {"bits": Term(self.bits_per_row(counts, len(target)), 0.0)}

    def levels(self, latents: SparseLatents) -> Int[Tensor, " kept"]:
        """q of each kept latent, 0 where it is not active."""
        return (latents.values / self.step_size[latents.indices]).round().long()

    def _code_of_each(self, latents: SparseLatents) -> Int[Tensor, " kept"]:
        """latent · levels + q − 1 of each kept latent, NULL where it is not active."""
        levels = self.levels(latents)
        return torch.where(levels > 0, latents.indices * self.cfg.levels + levels - 1, NULL)

    def codes_of(self, latents: SparseLatents) -> Int[Tensor, "batch n"]:
        """Each row's codes, latent · levels + q − 1, in rising order; NULL fills up."""
        codes = self._code_of_each(latents)
        on = (codes != NULL).nonzero().squeeze(1)
        rows = latents.rows[on]
        codes, order = codes[on].sort(stable=True)
        rows, by_row = rows[order].sort(stable=True)
        place = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)
        width = int(place.max()) + 1 if len(place) else 0
        table = torch.full((latents.n_rows, width), NULL, dtype=torch.int64, device=rows.device)
        table[rows, place] = codes[by_row]
        return table

    def bits_per_row(self, counts: Int[Tensor, " n_codes"], n_rows: int) -> Float[Tensor, ""]:
        """Σ_i H(level of latent i, off included): the latents coded one by one, as if they were independent."""
        on = counts.view(self.cfg.d_sae, self.cfg.levels).double() / n_rows
        return entropy_bits(on).sum() + entropy_bits((1 - on.sum(dim=1)).clamp_min(0)).sum()

    def decode_codes(self, codes: Int[Tensor, "batch n"]) -> Float[Tensor, "batch {self.cfg.d_in}"]:
        """The reconstruction from nothing but the codes."""
        row, slot = (codes != NULL).nonzero(as_tuple=True)
        told = codes[row, slot]
        latents = told.div(self.cfg.levels, rounding_mode="floor")
        offsets = torch.searchsorted(row, torch.arange(len(codes) + 1, device=row.device))
        values = self.step_size[latents] * (told % self.cfg.levels + 1)
        return self.decode(SparseLatents(values, Pattern(latents, offsets, self.cfg.d_sae)))

    @torch.no_grad()
    def point(self, latents: Tensor, encoder_rows: Tensor, decoder_rows: Tensor) -> None:
        """As every SAE, with the mean step size."""
        super().point(latents, encoder_rows, decoder_rows)
        self.log_step.index_copy_(0, latents, self.log_step.mean().expand(len(latents)))

    @torch.no_grad()
    def initialise(
        self, x_sample: Tensor, generator: torch.Generator | None = None, target_sample: Tensor | None = None
    ) -> None:
        """As every SAE, with step sizes at which the mean kept pre-activation is the middle level."""
        super().initialise(x_sample, generator, target_sample)
        kept = self.keep(x_sample - self.b_dec, STEADY).pre_acts
        middle = torch.relu(kept).mean() * 2 / (self.cfg.levels + 1)
        self.log_step.copy_((middle / self.unit).clamp_min(1e-3).log().expand_as(self.log_step))


class _Quantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, s: Tensor, levels: int) -> Tensor:
        q = (z / s).round().clamp(1, levels) * (z > 0)
        ctx.save_for_backward(z, s, q)
        return s * q

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        z, s, q = ctx.saved_tensors
        (grad,) = grad_outputs
        ratio = z / s
        within = (ratio - q).abs() <= 0.5
        return grad * (z > 0), grad * (q - torch.where(within, ratio, 0.0) * (z > 0)), None
