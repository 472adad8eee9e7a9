"""SAELens' own checkpoints as a worker: trains and saves one as asked, or opens one that was written for it.

Either way it records what SAELens itself makes of the test rows, so that whoever reads the files can be compared.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answers import answer_rows
from sae_lens import SAE, TrainingSAE
from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME, ACTIVATION_WHITENING_FILENAME
from sae_lens.registry import get_sae_class
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.activation_scaler import ActivationScaler
from saelens_sae import build, trainer
from torch import Tensor

NORM_BATCHES = 8
FILES = ("cfg.json", "sae_weights.safetensors", ACTIVATION_SCALER_CFG_FILENAME, ACTIVATION_WHITENING_FILENAME)
SAVED_AS_JUMPRELU = ("batchtopk", "matryoshka_batchtopk")
WHERE = {"model_name": "tiny", "hook_name": "blocks.1.hook_resid_post", "prepend_bos": True, "context_size": 64}
"""What SAELens' runner would put into the metadata."""


@torch.no_grad()
def opened(request: dict[str, Any], test: Tensor) -> Tensor:
    """What SAELens makes of a folder that was written for it, which it saves again in its own way."""
    sae = SAE.load_from_disk(request["load"])
    sae.save_model(request["resave"])
    return sae(test)


def made(request: dict[str, Any], test: Tensor) -> Tensor:
    """One of SAELens' own, saved in the folder."""
    torch.manual_seed(request["seed"])
    folder = Path(request["folder"])
    if "transcoder" in request["architecture"]:
        return drawn(request, folder, test)
    rows = np.load(request["rows"], mmap_mode="r")
    sae = build(request["architecture"], rows.shape[1], request["d_sae"], request["settings"])
    sae.cfg.metadata = SAEMetadata(**{**sae.cfg.metadata.to_dict(), **WHERE})
    with tempfile.TemporaryDirectory() as scratch:
        fit(sae, rows, request, scratch)
        if request["finish"] == "checkpoint":
            return checkpoint(request["architecture"], next(Path(scratch).iterdir()), folder, test)
    with torch.no_grad():
        if request["finish"] == "decoder norms folded":
            sae.fold_W_dec_norm()
        sae.save_inference_model(folder)
        if request["finish"] == "older config":
            describe_as_before_6(folder)
        return SAE.load_from_disk(folder)(test)


def describe_as_before_6(folder: Path) -> None:
    """The config in the words of version 5, which SAELens brings up to date when it reads it."""
    path = folder / FILES[0]
    new = json.loads(path.read_text(encoding="utf-8"))
    kept = ("d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations")
    topk = new["architecture"] == "topk"
    old = {
        "architecture": "standard" if topk else new["architecture"],
        "activation_fn_str": "topk" if topk else "relu",
        "activation_fn_kwargs": {"k": new["k"]} if topk else {},
        "finetuning_scaling_factor": False,
        "hook_layer": 1,
        "hook_head_index": None,
        "dataset_path": "stories",
        "dataset_trust_remote_code": True,
        "sae_lens_training_version": "5.11.0",
        **WHERE,
        **{name: new[name] for name in kept},
    }
    path.write_text(json.dumps(old), encoding="utf-8")


def fit(sae: Any, rows: np.ndarray, request: dict[str, Any], scratch: str) -> None:
    """SAELens' trainer over the rows, with one checkpoint half way."""
    batches = batched(rows, request["batch"])
    if sae.cfg.normalize_activations != "none":
        batches = chain(islice(batched(rows, request["batch"]), NORM_BATCHES), batches)
    own = trainer(
        sae,
        batches,
        len(rows) // request["batch"],
        request["batch"],
        n_batches_for_norm_estimate=NORM_BATCHES,
        lr=request["lr"],
        n_checkpoints=1,
        checkpoint_path=scratch,
    )
    own.fit()


@torch.no_grad()
def checkpoint(architecture: str, found: Path, folder: Path, test: Tensor) -> Tensor:
    """The checkpoint from the middle of a training, whose rows are still normalised outside of the SAE."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (found / name).exists():
            shutil.copy(found / name, folder / name)
    sae, scaler = TrainingSAE.load_from_disk(folder), ActivationScaler()
    scaler.load(folder / ACTIVATION_SCALER_CFG_FILENAME)
    if architecture not in SAVED_AS_JUMPRELU:
        return scaler.unscale(sae(scaler.scale(test)))
    # in training its rows share a budget; what it is at inference is only known by saving it so
    if scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if scaler.whitening is not None:
        whitening = scaler.whitening
        sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
    with tempfile.TemporaryDirectory() as scratch:
        sae.save_inference_model(scratch)
        return SAE.load_from_disk(scratch)(test)


@torch.no_grad()
def drawn(request: dict[str, Any], folder: Path, test: Tensor) -> Tensor:
    """A transcoder with random weights: SAELens does not train any."""
    sae_cls, config_cls = get_sae_class(request["architecture"])
    where = SAEMetadata(**{**WHERE, "hook_name": "blocks.1.hook_resid_mid", "hook_name_out": "blocks.1.hook_mlp_out"})
    settings = {"d_in": test.shape[1], "d_sae": request["d_sae"], "apply_b_dec_to_input": False, "metadata": where}
    sae = sae_cls(config_cls(**settings, **request["settings"]))
    for name, parameter in sae.named_parameters():
        noise = torch.rand_like(parameter) if name == "threshold" else torch.randn_like(parameter)
        parameter.copy_(0.3 * noise)
    sae.save_model(folder)
    return SAE.load_from_disk(folder)(test)


def batched(rows: np.ndarray, batch: int) -> Iterator[Tensor]:
    """Consecutive batches, copied out of the file."""
    return (torch.from_numpy(rows[i : i + batch].copy()) for i in range(0, len(rows), batch))


if __name__ == "__main__":
    answer_rows(opened, made)
