"""BatchTopK: keep a batch's k · batch largest pre-activations, so that rows take as many latents as they need.

Bussmann et al. 2024, arXiv:2412.06410. The loss is FVU + aux_alpha · AuxK. At inference latents above the threshold
learned along the way are kept, row by row: a JumpReLU with one threshold for all latents.
"""

from dataclasses import dataclass
from typing import ClassVar, final

from sae.ksparse import KSparse, KSparseConfig, Pool


@dataclass(frozen=True, kw_only=True)
class BatchTopKConfig(KSparseConfig):
    """A BatchTopK SAE."""

    @property
    def pool(self) -> Pool:
        """The batch."""
        return "batch"


@final
class BatchTopK(KSparse[BatchTopKConfig]):
    """The k · batch largest pre-activations of a batch, after ReLU; above a threshold at inference."""

    config_cls = BatchTopKConfig
    is_jumprelu: ClassVar[bool] = True
