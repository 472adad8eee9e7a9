"""Discrete codes after training: a ReLU + L1 SAE whose integer code is the largest latent of a row.

O'Neill & Bui 2024, arXiv:2405.12522, over attention heads' outputs. Nothing is discrete in training. A row in which no
latent fires has the code NULL (the paper's argmax puts it under latent 0). The paper minimises the mean square error of
an entry + 0.02 · L1 on data of whatever scale; on data of scale u that is a λ of 0.02 · d_in / u here.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.codes import NULL, Coded, entropy_bits
from sae.relu import L1, L1Config
from sae.sparse import SparseLatents


@dataclass(frozen=True, kw_only=True)
class ArgmaxCodesConfig(L1Config):
    """An SAE with the largest latent as code."""

    l1_coefficient: float = 15.0
    """λ: about the paper's, 0.02 · 768, for GPT-2 small's width and scale 1."""


@final
class ArgmaxCodes(L1[ArgmaxCodesConfig], Coded):
    """All positive pre-activations; the largest one is the code."""

    config_cls = ArgmaxCodesConfig

    @property
    def n_codes(self) -> int:
        """One for each latent."""
        return self.cfg.d_sae

    def codes_of(self, latents: SparseLatents) -> Int[Tensor, "batch 1"]:
        """The largest latent of each row, the first of equal ones; NULL where none is active."""
        largest = latents.values.new_zeros(latents.n_rows).scatter_reduce(0, latents.rows, latents.values, "amax")
        is_largest = latents.active & (latents.values == largest[latents.rows])
        candidates = torch.where(is_largest, latents.indices, self.cfg.d_sae)
        first = torch.full((latents.n_rows,), self.cfg.d_sae, device=candidates.device)
        first = first.scatter_reduce(0, latents.rows, candidates, "amin")
        return torch.where(first == self.cfg.d_sae, NULL, first).unsqueeze(1)

    def bits_per_row(self, counts: Int[Tensor, " n_codes"], n_rows: int) -> Float[Tensor, ""]:
        """The entropy of the code, NULL included."""
        p = torch.cat([counts, (n_rows - counts.sum()).reshape(1)]).double() / n_rows
        return entropy_bits(p).sum()
