"""sparsify's own checkpoints as a worker: trains and saves one as asked, or opens one that was written for it.

Either way it records what `SparseCoder.load_from_disk` makes of the test rows, by `encode` and `decode`: `forward` is
the same, but with `multi_topk` it returns the reconstruction from 4k latents, without the skip. What a transcoder
predicts is a linear map of its rows.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answers import answer_rows
from sparsify import SparseCoder, SparseCoderConfig, TrainConfig, Trainer
from sparsify_trainer import SITE, Batches, RowsModel
from torch import Tensor, nn

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "topk": {},
    "topk_free": {"normalize_decoder": False},
    "topk_multi": {"multi_topk": True},
    "topk_skip": {"skip_connection": True},
    "transcoder": {"transcode": True},
    "transcoder_skip": {"transcode": True, "skip_connection": True},
}
FILES = ("cfg.json", "sae.safetensors")


@torch.no_grad()
def opened(request: dict[str, Any], test: Tensor) -> Tensor:
    """What sparsify makes of a folder that was written for it, which it saves again in its own way."""
    coder = SparseCoder.load_from_disk(request["load"])
    coder.save_to_disk(request["resave"])
    return x_hat_of(coder, test)


def made(request: dict[str, Any], test: Tensor) -> Tensor:
    """One of sparsify's own, saved in the folder."""
    torch.manual_seed(request["seed"])
    folder, rows = Path(request["folder"]), torch.from_numpy(np.load(request["rows"]))
    folder.mkdir(parents=True, exist_ok=True)
    model = RowsModel(rows)
    settings = ARCHITECTURES[request["architecture"]]
    if "transcode" in settings:
        model.site = nn.Linear(rows.shape[1], rows.shape[1])
    coder = SparseCoderConfig(num_latents=request["d_sae"], **settings, **request["settings"])
    batches = Batches(len(rows), request["batch"], len(rows) // request["batch"])
    with tempfile.TemporaryDirectory() as scratch:
        chosen = {"optimizer": "adam", "lr": request["lr"], "lr_warmup_steps": 5, "init_seeds": [request["seed"]]}
        cfg = TrainConfig(coder, batch_size=1, hookpoints=[SITE], log_to_wandb=False, save_dir=scratch, **chosen)
        Trainer(cfg, batches, model).fit()
        for name in FILES:
            shutil.copy(Path(scratch) / "unnamed" / SITE / name, folder / name)
    return x_hat_of(SparseCoder.load_from_disk(folder), test)


@torch.no_grad()
def x_hat_of(coder: SparseCoder, x: Tensor) -> Tensor:
    """From k latents, with the skip where there is one."""
    encoded = coder.encode(x)
    x_hat = coder.decode(encoded.top_acts, encoded.top_indices)
    return x_hat if coder.W_skip is None else x_hat + x @ coder.W_skip.mT


if __name__ == "__main__":
    answer_rows(opened, made)
