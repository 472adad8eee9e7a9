"""An SAE on disk: `sae.safetensors` and `config.json`, which names the variant, its config and the tensors' hash.

Each file is written beside its final name and renamed; the hash ties the two together, so that a reader who arrives
between the renames sees a mismatch and not half of each.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from sae import VARIANTS
from sae.base import SAE
from store.errors import UsageError
from store.files import write_hashed, write_json

TENSORS_FILE = "sae.safetensors"
CONFIG_FILE = "config.json"
FORMAT = "monosem-sae"
FORMAT_VERSION = 2
"""Raised when an older reader would misread a newer file."""


def save(folder: Path, sae: SAE, extra: dict[str, Any] | None = None) -> None:
    """Write the SAE and `extra` (JSON values: what made it) into `folder`, which is created."""
    folder = Path(folder)
    tensors = save_tensors({name: p.detach().cpu().contiguous() for name, p in sae.state_dict().items()})
    written = write_hashed(folder / TENSORS_FILE, [tensors])
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "variant": variant_name(sae),
        "config": dataclasses.asdict(sae.cfg),
        "dtype": str(sae.W_dec.dtype).removeprefix("torch."),
        "tensors_sha256": written.sha256,
        "extra": extra or {},
    }
    write_json(folder / CONFIG_FILE, description)


def load(folder: Path) -> SAE:
    """The SAE in `folder`, on CPU, in the dtype it was saved in.

    Raises:
        UsageError: files are missing, damaged or of another version, or a tensor holds NaN or infinities.
    """
    folder = Path(folder)
    description = describe(folder)
    sae = _build(folder, description)
    tensors = _read_tensors(folder, description)
    _check_tensors(folder, sae, tensors)
    # copying into the existing parameters restores their memory layout, W_enc's transposed one included
    sae.load_state_dict(tensors)
    return sae


def decoder_norms(folder: Path, latents: Sequence[int]) -> list[float]:
    """Lengths of these latents' decoder rows, with nothing else read.

    Raises:
        UsageError: the file is missing or damaged, or has no such rows.
    """
    path = Path(folder) / TENSORS_FILE
    try:
        with safe_open(path, framework="pt") as tensors:
            rows = tensors.get_slice("W_dec")
            return [float(rows[latent].double().norm()) for latent in latents]
    except (OSError, SafetensorError, IndexError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}): the checkpoint is damaged, train or copy it again"
        ) from error


def describe(folder: Path) -> dict[str, Any]:
    """The contents of config.json, checked to be ours and of a version this code can read."""
    path = Path(folder) / CONFIG_FILE
    try:
        description = json.loads(_read(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not JSON ({error}): the checkpoint is damaged, train or copy it again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise UsageError(f"{path} does not say format={FORMAT!r}: this is not a checkpoint written by monosem")
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        way = "train it again" if isinstance(version, int) and version < FORMAT_VERSION else "upgrade monosem"
        raise UsageError(f"{path} has format_version={version}, this monosem reads {FORMAT_VERSION}: {way}")
    return description


def variant_name(sae: SAE) -> str:
    """Its name in `sae.VARIANTS`.

    Raises:
        ValueError: it has none.
    """
    for name, cls in VARIANTS.items():
        if type(sae) is cls:
            return name
    raise ValueError(f"{type(sae).__name__} is not in sae.VARIANTS={sorted(VARIANTS)}: add it to save it")


def _build(folder: Path, description: dict[str, Any]) -> SAE:
    """A fresh SAE of the described variant, config and dtype."""
    path, variant = folder / CONFIG_FILE, description.get("variant")
    if variant not in VARIANTS:
        raise UsageError(f"{path} has variant={variant!r}, known are {sorted(VARIANTS)}: upgrade monosem or retrain")
    cls = VARIANTS[variant]
    dtype = getattr(torch, str(description.get("dtype")), None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"{path} has dtype={description.get('dtype')!r}, not a torch dtype: the checkpoint is damaged")
    try:
        return cls(cls.config_cls(**_settings(description.get("config", {})))).to(dtype)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path} has a config that {cls.__name__} refuses ({error}): retrain or mend it") from error


def _settings(config: Any) -> dict[str, Any]:
    """A config as it was before JSON made lists of its tuples."""
    if not isinstance(config, dict):
        raise TypeError(f"it is {config!r}, not settings by name")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}


def _read_tensors(folder: Path, description: dict[str, Any]) -> dict[str, torch.Tensor]:
    path = folder / TENSORS_FILE
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != description.get("tensors_sha256"):
        raise UsageError(f"{path} is not the file {CONFIG_FILE} describes (sha256 differs): copy or train it again")
    try:
        return load_tensors(data)
    except SafetensorError as error:
        raise UsageError(f"{path} is not a safetensors file ({error}): copy or train it again") from error


def _check_tensors(folder: Path, sae: SAE, tensors: dict[str, torch.Tensor]) -> None:
    expected = {name: (*p.shape, p.dtype) for name, p in sae.state_dict().items()}
    found = {name: (*p.shape, p.dtype) for name, p in tensors.items()}
    if expected != found:
        raise UsageError(f"{folder / TENSORS_FILE} holds {found}, its config asks for {expected}: they do not belong")
    for name, tensor in tensors.items():
        check_finite(folder / TENSORS_FILE, name, tensor)


def check_finite(path: Path, name: str, tensor: torch.Tensor) -> None:
    """Refuse NaN and infinities.

    Raises:
        UsageError: some numbers are not finite; says of which tensor and how many.
    """
    if not tensor.is_floating_point():
        return
    bad = int((~tensor.isfinite()).sum())
    if bad:
        raise UsageError(
            f"{path} holds {bad} of {tensor.numel()} numbers in {name} that are NaN or infinite: the checkpoint is "
            "damaged, or of a training that diverged; use an earlier one"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path} is missing: pass a folder that holds {TENSORS_FILE} and {CONFIG_FILE}") from error
