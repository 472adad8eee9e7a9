"""A training run on disk, to go on from: a folder `step-N` with `state.safetensors` and `state.json`.

The folder is written under another name and renamed, so that it is whole or not there. Only the newest are kept.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file

from sae.train import TrainingState
from store.errors import UsageError
from store.files import whole_file, write_json
from store.hashing import sha256_file

TENSORS_FILE = "state.safetensors"
STATE_FILE = "state.json"
FORMAT = "monosem-training"
FORMAT_VERSION = 1
N_KEPT = 2
"""Older ones are removed once a newer one is whole."""
NAME = re.compile(r"step-(\d+)")


class Saved(NamedTuple):
    """A checkpoint read back."""

    state: TrainingState
    extra: dict[str, Any]
    """What the caller added: where the reader stands."""


def save_state(root: Path, state: TrainingState, extra: dict[str, Any]) -> Path:
    """Write `root/step-N` and remove all but the newest; `extra` is JSON.

    Raises:
        UsageError: the disk is full, or the folder cannot be written.
    """
    for left_over in root.glob(".step-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    folder = root / f"step-{state.step:08d}"
    beside = root / f".{folder.name}.{os.getpid()}"
    try:
        with whole_file(beside / TENSORS_FILE) as scratch:
            save_file({name: value.contiguous() for name, value in state.tensors.items()}, scratch)
        write_json(beside / STATE_FILE, _description(state, extra, beside / TENSORS_FILE))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for old in checkpoints(root)[:-N_KEPT]:
        shutil.rmtree(old)
    return folder


def checkpoints(root: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [path for path in root.glob("step-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def newest(root: Path) -> Saved | None:
    """The newest checkpoint in `root`; None if there is none.

    Raises:
        UsageError: it is damaged, or of another version.
    """
    found = checkpoints(root)
    return load_state(found[-1]) if found else None


def load_state(folder: Path) -> Saved:
    """The checkpoint in `folder`.

    Raises:
        UsageError: it is damaged, or of another version.
    """
    way = f"delete {folder}, and training goes on from an older one or begins again"
    try:
        told = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if told["format"] != FORMAT or told["format_version"] != FORMAT_VERSION:
            version = f"{told['format']} {told['format_version']}"
            raise UsageError(f"{folder} is a checkpoint of {version}, this is {FORMAT} {FORMAT_VERSION}: {way}")
        if sha256_file(folder / TENSORS_FILE) != told["tensors_sha256"]:
            raise UsageError(f"{folder / TENSORS_FILE} is not what {STATE_FILE} describes (sha256 differs): {way}")
        tensors: dict[str, torch.Tensor] = load_tensors((folder / TENSORS_FILE).read_bytes())
        state = TrainingState(told["step"], told["n_tokens"], told["dead_threshold"], told["config"], tensors)
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise UsageError(f"{folder} is damaged ({error}): {way}") from error
    return Saved(state, told["extra"])


def _description(state: TrainingState, extra: dict[str, Any], tensors: Path) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": state.step,
        "n_tokens": state.n_tokens,
        "dead_threshold": state.dead_threshold,
        "config": state.config,
        "tensors_sha256": sha256_file(tensors),
        "extra": extra,
    }
