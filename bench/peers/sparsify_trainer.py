"""sparsify's own trainer on given rows: `Trainer.fit` is one function around a language model, so a stand-in is given.

The stand-in's only hook point hands out the rows of a batch as they are, which costs nothing; everything else is the
trainer's: decoder bias from the first batch's mean, decoder norms, fused encoder, decode by torch's own embedding_bag
(triton's is switched off), FVU, backward, gradient projection, optimiser, bookkeeping of dead latents.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # read when sparsify is imported

import torch
from sparsify import SparseCoder, SparseCoderConfig, TrainConfig, Trainer
from torch import Tensor, nn

SITE = "site"
"""The stand-in's hook point."""


class RowsModel(nn.Module):
    """Where the language model would be: token ids are row numbers, and the hook point's output is those rows."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.site = nn.Identity()
        self.rows = rows
        self.device = torch.device("cpu")
        self.dummy_inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.long)}

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, input_ids: Tensor) -> None:
        first = int(input_ids[0, 0])
        self.site(self.rows[None, first : first + input_ids.shape[1]])


class Batches:
    """A data set with one sequence a step: the row numbers of its batch. The rows come round again where they end."""

    def __init__(self, n_rows: int, batch: int, n_steps: int, before_step: Callable[[], None] = lambda: None) -> None:
        self.n_rows, self.batch, self.n_steps, self.before_step = n_rows, batch, n_steps, before_step

    def __len__(self) -> int:
        return self.n_steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        ids = torch.arange(self.batch) + step * self.batch % self.n_rows
        self.before_step()
        return {"input_ids": ids}


def trainer(rows: Tensor, d_sae: int, k: int, batches: Batches, save_dir: Path, **settings: Any) -> Trainer:
    """Its trainer with one SAE, nothing logged; what `settings` do not name has the library's defaults."""
    cfg = TrainConfig(
        SparseCoderConfig(num_latents=d_sae, k=k),
        batch_size=1,
        hookpoints=[SITE],
        log_to_wandb=False,
        save_dir=str(save_dir),
        **settings,
    )
    return Trainer(cfg, batches, RowsModel(rows))


def coder(own: Trainer) -> SparseCoder:
    """The SAE that is trained."""
    return own.saes[SITE]


def saved(own: Trainer) -> SparseCoder:
    """The SAE as `fit` saved it: with a schedule-free optimiser, the average of the steps and not the last one."""
    return SparseCoder.load_from_disk(Path(own.cfg.save_dir) / "unnamed" / SITE)
