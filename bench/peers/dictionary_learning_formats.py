"""dictionary_learning's own checkpoints as a worker: trains and saves one as asked, or opens one written for it.

Either way it records what the library's own loader, `load_dictionary`, makes of the test rows.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answers import answer_rows
from dictionary_learning.dictionary import AutoEncoderNew
from dictionary_learning.trainers import (
    BatchTopKTrainer,
    GatedAnnealTrainer,
    GatedSAETrainer,
    JumpReluTrainer,
    PAnnealTrainer,
    StandardTrainer,
    TopKTrainer,
)
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
from dictionary_learning.training import trainSAE
from dictionary_learning.utils import load_dictionary
from torch import Tensor

NEVER = 10**9
TRAINERS: dict[str, tuple[type, dict[str, Any]]] = {
    "batchtopk": (BatchTopKTrainer, {"threshold_start_step": 10}),
    "batchtopk_no_threshold": (BatchTopKTrainer, {"threshold_start_step": NEVER}),
    "gated": (GatedSAETrainer, {"sparsity_warmup_steps": 5}),
    "gated_anneal": (GatedAnnealTrainer, {"sparsity_warmup_steps": 5, "anneal_start": 10}),
    "jumprelu": (JumpReluTrainer, {"sparsity_warmup_steps": 5, "bandwidth": 0.3}),
    "matryoshka": (MatryoshkaBatchTopKTrainer, {"threshold_start_step": 10, "group_fractions": [0.25, 0.25, 0.5]}),
    "p_anneal": (PAnnealTrainer, {"sparsity_warmup_steps": 5, "anneal_start": 10, "p_end": 0.2}),  # it divides by p
    "standard": (StandardTrainer, {"sparsity_warmup_steps": 5}),
    "standard_april": (StandardTrainerAprilUpdate, {"sparsity_warmup_steps": 5}),
    "topk": (TopKTrainer, {"threshold_start_step": 10}),
}
"""Its trainers, with schedules for short runs."""
WITHOUT_SUBMODULE = ("gated_anneal",)
"""Do not say where."""


class Batches:
    """Consecutive batches, as often as they are asked for; copies, since the library scales them in place."""

    def __init__(self, rows: np.ndarray, batch: int) -> None:
        self.rows, self.batch = rows, batch

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.rows), self.batch):
            yield torch.from_numpy(self.rows[start : start + self.batch].copy())


@torch.no_grad()
def opened(request: dict[str, Any], test: Tensor) -> Tensor:
    """What the library makes of a folder that was written for it, which is then saved as `trainSAE` does."""
    found, there = Path(request["load"]), Path(request["resave"])
    dictionary, config = load_dictionary(str(found), device="cpu")
    there.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.cpu() for name, tensor in dictionary.state_dict().items()}, there / "ae.pt")
    (there / "config.json").write_text(json.dumps(config, indent=4))
    return dictionary(test)


def made(request: dict[str, Any], test: Tensor) -> Tensor:
    """One of the library's own, saved in the folder."""
    torch.manual_seed(request["seed"])
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    if request["architecture"] == "standard_new":
        draw(folder, test.shape[1], request["d_sae"])
    else:
        fit(request, folder, test.shape[1])
    with torch.no_grad():
        return load_dictionary(str(folder), device="cpu")[0](test)


def fit(request: dict[str, Any], folder: Path, d_in: int) -> None:
    """`trainSAE` over the rows; what it saved last is copied."""
    trainer, settings = TRAINERS[request["architecture"]]
    rows = np.load(request["rows"], mmap_mode="r")
    steps = len(rows) // request["batch"]
    where = {"layer": 1, "lm_name": "tiny", "submodule_name": "resid_post_layer_1"}
    if request["architecture"] in WITHOUT_SUBMODULE:
        del where["submodule_name"]
    widths = {"activation_dim": d_in, "dict_size": request["d_sae"]}
    common = {"trainer": trainer, "steps": steps, "lr": request["lr"], "warmup_steps": 5, "device": "cpu"}
    if trainer is not JumpReluTrainer:  # takes none in its base class
        common["seed"] = request["seed"]
    with tempfile.TemporaryDirectory() as scratch:
        trainSAE(
            Batches(rows, request["batch"]),
            [{**common, **widths, **where, **settings, **request["settings"]}],
            steps,
            save_dir=scratch,
            normalize_activations=request["finish"] == "normalised",
            device="cpu",
        )
        for name in ("ae.pt", "config.json"):
            shutil.copy(Path(scratch) / "trainer_0" / name, folder / name)


@torch.no_grad()
def draw(folder: Path, d_in: int, d_sae: int) -> None:
    """The class that no trainer makes any more, with random weights."""
    dictionary = AutoEncoderNew(d_in, d_sae)
    for parameter in dictionary.parameters():
        parameter.copy_(0.3 * torch.randn_like(parameter))
    torch.save(dictionary.state_dict(), folder / "ae.pt")
    trainer = {"dict_class": "AutoEncoderNew", "activation_dim": d_in, "dict_size": d_sae, "lm_name": "tiny"}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}, indent=4))


if __name__ == "__main__":
    answer_rows(opened, made)
