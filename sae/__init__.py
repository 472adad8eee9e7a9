"""The mathematics of sparse autoencoders: variants, losses, metrics, training and interventions."""

from sae.base import SAE, Loss, SAEConfig, SAEOutput, SparseLatents
from sae.topk import TopK, TopKConfig

VARIANTS: dict[str, type[SAE]] = {"topk": TopK}
"""Every variant by the name used on the command line and in checkpoints."""

__all__ = ["SAE", "VARIANTS", "Loss", "SAEConfig", "SAEOutput", "SparseLatents", "TopK", "TopKConfig"]
