"""Models by reference: the tiny one, a wheel's GGUF, a hub id, a local folder or GGUF file."""

import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as _version
from pathlib import Path
from typing import Any

from filelock import FileLock

from activations.lm import LanguageModel
from activations.tokenizer import TOKENIZER_FILES, ByteTokenizer, HFTokenizer, Tokenizer
from store.assets import WHEELS, cache_dir, resolve
from store.errors import UsageError
from store.files import disk_errors, read_json, write_json
from store.hashing import content_hash
from store.remembered import remembered_hash, remembered_sha256
from store.run import Run

TINY = "tiny"
DEFAULT_MODEL = "wheel:smollm2-135m-instruct"
RECEIPT = "monosem.json"
WEIGHTS = "*.safetensors"
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk, not loaded."""

    reference: str
    folder: Path | None
    """None for the tiny model, which needs no file."""
    weights_hash: str
    config_hash: str
    tokenizer_hash: str

    @property
    def identity(self) -> dict[str, str]:
        """What makes two models the same model, wherever their files are."""
        return {"weights": self.weights_hash, "config": self.config_hash, "tokenizer": self.tokenizer_hash}


def find_model(reference: str, revision: str | None = None) -> ModelFiles:
    """The files of a model, fetched and dequantized once if need be; nothing is loaded.

    Args:
        reference: `tiny`, `wheel:NAME`, a hub id (`gpt2`, `ORG/NAME`, or `hub:ORG/NAME` where a folder has that name
            too), a folder with safetensors, or a .gguf file.
        revision: branch, tag or commit, for a model from the hub.

    Raises:
        UsageError: no such model, or one without safetensors.
    """
    if revision and (reference == TINY or _is_here(reference)):
        raise UsageError(
            f"revision '{revision}' is for a model from the hub: {reference} has no revision, leave it out"
        )
    if reference == TINY:
        return ModelFiles(reference, None, "tiny-1-0", "tiny-1", ByteTokenizer.fingerprint)
    path = _path(reference, revision)
    folder = _dequantized(path) if path.suffix == ".gguf" else path
    if not (folder / "config.json").exists() or not list(folder.glob(WEIGHTS)):
        raise UsageError(f"{folder} has no config.json and safetensors: save the model there with save_pretrained")
    return ModelFiles(
        reference,
        folder,
        remembered_hash(folder, (WEIGHTS,)),
        remembered_hash(folder, ("config.json",)),
        remembered_hash(folder, TOKENIZER_FILES),
    )


def _is_here(reference: str) -> bool:
    """Whether it names something other than a model of the hub."""
    return reference.startswith("wheel:") or Path(reference).expanduser().exists()


def _path(reference: str, revision: str | None) -> Path:
    if _is_here(reference) or reference.startswith("hub:"):
        return resolve(reference, revision)
    wheels = ", ".join(f"wheel:{name}" for name in WHEELS if "smollm" in name)
    ways = f"give {TINY}, {wheels}, a hub id such as gpt2 or ORG/NAME, a folder or a .gguf file"
    if not HUB_ID.match(reference):
        raise UsageError(f"no model '{reference}': {ways}")
    try:
        return resolve(f"hub:{reference}", revision)
    except UsageError as error:
        raise UsageError(f"no model '{reference}' here, and {error}; or {ways}") from error


def load_model(
    reference: str, *, revision: str | None = None, device: str = "cpu", dtype: str = "float32"
) -> LanguageModel:
    """Load a model; the tiny one in milliseconds, others in seconds.

    Args:
        reference: as for `find_model`.
        revision: as for `find_model`.
        device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for the best there is.
        dtype: `float32`, `bfloat16` or `float16`: what it computes in.

    Raises:
        UsageError: as `find_model`, or a device or dtype that torch does not have.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype '{dtype}' is not known: choose one of {', '.join(DTYPES)}")
    files = find_model(reference, revision)
    device = checked_device(device)
    if files.folder is None:
        from activations.tiny import TinyLM

        lm: LanguageModel = TinyLM()
        _remember_hook_names(files, lm)
        return lm
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import torch

    from activations.bridge import BridgeLM

    with _offline():
        lm = BridgeLM.load(files.folder, reference, files.weights_hash, device, getattr(torch, dtype))
    _remember_hook_names(files, lm)
    return lm


def load_tokenizer(reference: str, revision: str | None = None) -> Tokenizer:
    """A model's tokenizer, without the model.

    Args:
        reference: as for `find_model`.
        revision: as for `find_model`.

    Raises:
        UsageError: as `find_model`.
    """
    files = find_model(reference, revision)
    if files.folder is None:
        return ByteTokenizer()
    with _offline():
        return HFTokenizer(files.folder)


@contextmanager
def _offline() -> Iterator[None]:
    """Everything needed is on disk by now: the libraries may not look anywhere else while the context lasts.

    The environment variable of the same name is read once, at import, and would keep later texts from the hub too.
    """
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def load_recorded(run: Run, device: str | None = None) -> LanguageModel:
    """The model that a harvest was made with, on the device asked for, the harvest's, or the best there is.

    Raises:
        UsageError: it is not there any more, or is not the model that it was.
    """
    asked = run.config["harvest"]
    files = find_model(asked["model"], asked["revision"])
    other = [what for what, found in files.identity.items() if found != run.same["model"][what]]
    if other:
        raise UsageError(
            f"{asked['model']} has other {' and '.join(other)} than when harvest {run.id} was made: bring that model "
            "back, or harvest again with this one"
        )
    recorded = asked["device"] if _is_available(asked["device"]) else "auto"
    return load_model(asked["model"], revision=asked["revision"], device=device or recorded, dtype=asked["model_dtype"])


def known_hook_names(files: ModelFiles) -> tuple[str, ...] | None:
    """Names of a model's hook points, remembered from when it was last loaded; None if it never was."""
    receipt = _hook_receipt(files)
    return tuple(read_json(receipt)) if receipt.exists() else None


def _hook_receipt(files: ModelFiles) -> Path:
    return cache_dir() / "hooks" / f"{content_hash([files.identity, _version('transformer-lens')])}.json"


def _remember_hook_names(files: ModelFiles, lm: LanguageModel) -> None:
    receipt = _hook_receipt(files)
    if not receipt.exists():
        write_json(receipt, list(lm.hook_names()))


def _is_available(device: str) -> bool:
    return device == "auto" or device.partition(":")[0] in _devices()


def _devices() -> list[str]:
    import torch

    there = ["cpu"]
    there += ["mps"] if torch.backends.mps.is_available() else []
    return there + (["cuda"] if torch.cuda.is_available() else [])


def checked_device(name: str) -> str:
    """`name`, checked; `auto` becomes the best there is.

    Raises:
        UsageError: torch has no such device here.
    """
    there = _devices()
    if name == "auto":
        return there[-1]
    if not _is_available(name):
        raise UsageError(f"device '{name}' is not available here: choose one of {', '.join(there)}, or auto")
    return name


def _dequantized(gguf: Path) -> Path:
    """A folder with the GGUF's weights as float32 safetensors, made once and kept in the cache."""
    models = cache_dir() / "models"
    digest = remembered_sha256(gguf)
    folder = models / f"{gguf.stem}-{digest[:12]}"
    with disk_errors(folder):
        models.mkdir(parents=True, exist_ok=True)
    with FileLock(models / f".{folder.name}.lock"):
        if not (folder / RECEIPT).exists():
            with disk_errors(folder), tempfile.TemporaryDirectory(dir=models, prefix=".convert-") as scratch:
                target = Path(scratch) / "model"
                _convert(gguf, target)
                write_json(target / RECEIPT, {"made_from": gguf.name, "sha256": digest})
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
