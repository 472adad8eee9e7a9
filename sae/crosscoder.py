"""Crosscoders: one dictionary for several sites (hook points, or models on the same tokens) side by side.

x = [x_1 … x_n], a = ReLU((x − b_dec) W_enc + b_enc), each site with decoder rows of its own: Lindsey et al. 2024,
transformer-circuits.pub/2024/crosscoders. Sites are brought to equal variance. Latents are chosen by a_i Σ_s
‖W_dec[i, s]‖, the weight that paper penalises, and the largest of a batch are kept: Minder et al. 2025,
arXiv:2504.02922. By default decoder rows have norm 1 over all sites together: a latent's share of each site shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from sae.ksparse import KSparse, Pool, PooledConfig
from sae.loss import variance


@dataclass(frozen=True, kw_only=True)
class CrosscoderConfig(PooledConfig):
    """A crosscoder; by default with BatchTopK."""

    site_widths: tuple[int, ...]
    """Widths of the sites, in the order in which they lie side by side in x; they add up to d_in."""
    keep: Pool = "batch"
    """What shares the budget of k latents a row: each `row` or the `batch`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(width < 1 for width in self.site_widths) or sum(self.site_widths) != self.d_in:
            raise ValueError(
                f"site_widths={self.site_widths} do not add up to d_in={self.d_in}: give each site's width once"
            )

    @classmethod
    def of_widths(cls, widths: Sequence[int]) -> dict[str, Any]:
        """Of every site."""
        if len(widths) < 2:
            raise ValueError(f"{len(widths)} hook point, but a crosscoder has several: name 2 or more")
        return {"d_in": sum(widths), "site_widths": tuple(widths)}


@final
class Crosscoder(KSparse[CrosscoderConfig]):
    """One set of latents with decoder rows for every site."""

    config_cls = CrosscoderConfig
    _site_of_column: Tensor
    site_scale: Tensor
    """Each site's spread over the mean one: x is divided by it, reconstructions multiplied."""

    def __init__(self, cfg: CrosscoderConfig) -> None:
        super().__init__(cfg)
        self.register_buffer("site_scale", torch.ones(len(cfg.site_widths)))
        numbers = torch.arange(len(cfg.site_widths))
        self.register_buffer(
            "_site_of_column", numbers.repeat_interleave(torch.tensor(cfg.site_widths)), persistent=False
        )

    def sites(self, x: Float[Tensor, "rows {self.cfg.d_in}"]) -> tuple[Tensor, ...]:
        """The columns of each site."""
        return x.split(self.cfg.site_widths, dim=1)

    def site_norms(self) -> Float[Tensor, "n_sites {self.cfg.d_sae}"]:
        """Norm of each latent's decoder row at each site: where the latent lives."""
        return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in self.sites(self.W_dec)])

    def importance(self) -> Float[Tensor, " {self.cfg.d_sae}"]:
        """Σ_s ‖W_dec[i, s]‖."""
        return self.site_norms().sum(dim=0)

    def enter(self, x: Tensor) -> Tensor:
        """Every site at the same variance."""
        return x / self._scale_of_columns()

    def leave(self, x_hat: Tensor) -> Tensor:
        """Every site at its own scale."""
        return x_hat * self._scale_of_columns()

    @torch.no_grad()
    def initialise(
        self, x_sample: Tensor, generator: torch.Generator | None = None, target_sample: Tensor | None = None
    ) -> None:
        """As every SAE, on sites of equal variance."""
        variances = torch.stack([variance(part.double()) for part in self.sites(x_sample)])
        scale = (variances / variances.mean()).sqrt()
        self.site_scale.copy_(torch.where(scale > 0, scale, 1.0))
        super().initialise(self.enter(x_sample), generator)

    def _scale_of_columns(self) -> Float[Tensor, " {self.cfg.d_in}"]:
        return self.site_scale[self._site_of_column]
