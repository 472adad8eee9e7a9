"""TopK: keep each row's k largest pre-activations, a = ReLU(TopK((x − b_dec) W_enc + b_enc)).

Gao et al. 2024, arXiv:2406.04093. The loss is FVU + aux_alpha · AuxK, and with Multi-TopK + multi_topk · FVU(4k), in
which the 4k largest reconstruct as well, so that an SAE trained at k does not fall apart at other k (section 5.3).
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from sae.encoder import Encoded, Reconstruction
from sae.ksparse import KSparse, KSparseConfig
from sae.largest import row_largest
from sae.loss import Phase
from sae.sparse import Nesting, Pattern, SparseLatents

MULTI = 4
"""Multi-TopK's second reconstruction uses so many times k."""


@dataclass(frozen=True, kw_only=True)
class TopKConfig(KSparseConfig):
    """A TopK SAE."""

    multi_topk: float = 0.0
    """Weight of the FVU of the reconstruction from 4k latents; Gao et al. 2024 use 1/8, 0 turns it off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.multi_topk < math.inf:
            raise ValueError(f"multi_topk={self.multi_topk} is negative or not finite: choose multi_topk >= 0")
        if self.multi_topk and MULTI * self.k > self.d_sae:
            raise ValueError(
                f"multi_topk={self.multi_topk} needs 4k={MULTI * self.k} of d_sae={self.d_sae} latents: lower k"
            )


@final
class TopK(KSparse[TopKConfig]):
    """The k largest pre-activations of each row, after ReLU."""

    config_cls = TopKConfig

    def select(self, pre_acts: Float[Tensor, "rows {self.cfg.d_sae}"], phase: Phase | None) -> Pattern:
        """Each row's k largest; in training with Multi-TopK its 4k largest, largest first."""
        if phase is None or not self.cfg.multi_topk:
            return super().select(pre_acts, phase)
        k = min(MULTI * self.k_at(phase), self.cfg.d_sae)
        return Pattern.of_table(row_largest(pre_acts, k, ordered=True), self.cfg.d_sae)

    def reconstruct(self, encoded: Encoded, target: Tensor, total: Tensor, phase: Phase) -> Reconstruction:
        """FVU at k, and with Multi-TopK that at 4k beside it."""
        if not self.cfg.multi_topk:
            return super().reconstruct(encoded, target, total, phase)
        n_rows = len(target)
        many, k = len(encoded.latents.values) // n_rows, self.k_at(phase)
        group = (torch.arange(many, device=target.device) >= k).long().repeat(n_rows)
        weights = target.new_full((2,), self.cfg.multi_topk)
        weights[0].fill_(1.0)
        found = self.rebuilt(encoded.latents, target, total, phase, Nesting(group, weights, final=0))
        return found._replace(latents=_first(encoded.latents, k))


def _first(latents: SparseLatents, k: int) -> SparseLatents:
    """The first k latents of each row of a table."""
    n_rows, d_sae = latents.n_rows, latents.pattern.d_sae
    values, indices = latents.values.view(n_rows, -1)[:, :k], latents.indices.view(n_rows, -1)[:, :k]
    return SparseLatents.of_table(values, indices, d_sae)
