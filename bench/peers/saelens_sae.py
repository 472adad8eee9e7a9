"""SAELens' own training SAEs and trainer, by the names its registry has."""

from collections.abc import Iterator
from typing import Any

from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainingSAE
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

PLACES = {"b_enc": ("b_enc", "b_gate", "b_mag")}
"""Where a variant keeps a tensor, if not under its name: gated SAEs have two encoder biases."""


def build(variant: str, d_in: int, d_sae: int, settings: dict[str, Any]) -> TrainingSAE:
    """A training SAE with its library's defaults, but for `settings`."""
    sae_cls, config_cls = get_sae_training_class(variant)
    return sae_cls(config_cls(d_in=d_in, d_sae=d_sae, **settings))


def load_start(sae: TrainingSAE, start: dict[str, Tensor]) -> None:
    """Begin with these weights and biases."""
    for name, tensor in start.items():
        for place in PLACES.get(name, (name,)):
            if hasattr(sae, place):
                getattr(sae, place).data.copy_(tensor)


def trainer(sae: TrainingSAE, batches: Iterator[Tensor], n_steps: int, batch: int, **settings: Any) -> SAETrainer:
    """Its trainer, nothing logged; what `settings` do not name has the library's defaults."""
    cfg = SAETrainerConfig(total_training_samples=n_steps * batch, train_batch_size_samples=batch, **settings)
    cfg.lr_end = cfg.lr / 10  # as its runner fills it in: the trainer insists on one, a constant rate never reads it
    return SAETrainer(cfg, sae, batches)
