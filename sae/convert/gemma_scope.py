"""Gemma Scope: JumpReLU SAEs and transcoders in `params.npz`; Gemma Scope 2's in `params.safetensors`.

a = z · 1[z > threshold] · 1[z > 0], z = x W_enc + b_enc, x_hat = a W_dec + b_dec, and in Gemma Scope 2's transcoders
+ x affine_skip_connection. Read: the release's tutorial as kept in EleutherAI/sae-auto-interp
(`autoencoders/DeepMind/model.py`), and SAELens 6.54.12 (`pretrained_sae_loaders.py: gemma_2_sae, gemma_2_transcoder,
gemma_3`). The hub's folders say what a file is: a transcoder's tensors are named and shaped as an SAE's.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from sae.base import SAE
from sae.convert.files import Fields, Tensors, json_in, read_fields, read_tensors
from sae.convert.foreign import Foreign, Format
from sae.convert.parts import Parts, build, log_threshold
from sae.convert.weights import l0_within, norm_setting, transcoder
from store.errors import UsageError

NAME = "gemma_scope"
FILES = ("params.npz", "params.safetensors")
CONFIG_FILE = "config.json"
SKIP = "affine_skip_connection"
TOLD = ("model_name", "hf_hook_point_in", "hf_hook_point_out", "width", "l0", "affine_connection", "type")
L0_IN_NAME = re.compile(r"average_l0_(\d+)")


def recognises(source: Path) -> bool:
    """Whether there are parameters under the release's file name; with another library's config beside, it is not."""
    config = json_in(source.parent / CONFIG_FILE if source.is_file() else source / CONFIG_FILE)
    return _file(source) is not None and config.get("architecture", "jump_relu") == "jump_relu"


def read(source: Path) -> Foreign:
    """The SAE or transcoder in a folder or file.

    Raises:
        UsageError: the file is missing or damaged, or holds what cannot be represented.
    """
    file = _file(source)
    if file is None:
        raise UsageError(f"{source} has neither of {', '.join(FILES)}: give the folder of one SAE")
    tensors, fields = read_tensors(file), _fields(file)
    fields.must_be("architecture", "jump_relu", why="only JumpReLU is read")
    fields.must_be("type", "sae", "transcoder", why="only SAEs and transcoders of one layer are read")
    told = fields.told(*TOLD)
    if SKIP not in tensors and told.get("affine_connection"):
        raise UsageError(f"{file} has no tensor '{SKIP}', and {fields.path} says affine_connection: it is not complete")
    parts = _parts(tensors)
    _refuse_scaling(tensors)
    asked = told.get("l0") or _l0_in_name(file)
    make = _transcoder if _maps(file, tensors, told) else _autoencoder
    sae = make(file, tensors, parts, asked if isinstance(asked, int | float) else None)
    tensors.nothing_left()
    fields.nothing_left()
    folded = {} if make is _transcoder else {"b_dec not subtracted from x": True}
    origin = {"format": NAME, "folder": "/".join(file.parent.parts[-3:]), "folded": folded, **told}
    predicts = told.get("hf_hook_point_out") if make is _transcoder else None
    return Foreign(sae, origin, told.get("hf_hook_point_in"), told.get("model_name"), predicts)


def _file(source: Path) -> Path | None:
    if source.is_file():
        return source if source.name in FILES else None
    return next((source / name for name in FILES if (source / name).is_file()), None)


def _fields(file: Path) -> Fields:
    config = file.with_name(CONFIG_FILE)
    return read_fields(config) if config.is_file() else Fields(config, {})


def _maps(file: Path, tensors: Tensors, told: dict[str, Any]) -> bool:
    """Whether it is a transcoder: by its config, by its tensors, or by the release's name for its folders."""
    if SKIP in tensors or "type" in told:
        return SKIP in tensors or told["type"] == "transcoder"
    points = told.get("hf_hook_point_in"), told.get("hf_hook_point_out")
    if None not in points:
        return points[0] != points[1]
    folders = {*file.parts[:-1], *file.absolute().parts[:-1]}
    return (
        any(map(_names_transcoders, folders))
        or tensors.shape(_name(tensors, "W_dec"))[1] != tensors.shape(_name(tensors, "W_enc"))[0]
    )


def _names_transcoders(folder: str) -> bool:
    return folder.startswith("transcoder") or ("gemma-scope" in folder and "transcoder" in folder)


def _name(tensors: Tensors, name: str) -> str:
    """The release's second part writes its matrices small."""
    small = name.replace("W_", "w_")
    return small if small in tensors else name


def _parts(tensors: Tensors) -> Parts:
    W_enc, name = tensors.take(_name(tensors, "W_enc"), None, None), _name(tensors, "W_dec")
    if len(tensors.shape(name)) == 3:
        raise tensors.refusal(name, "it writes to several layers; no variant is a cross-layer transcoder")
    W_dec = tensors.take(name, W_enc.shape[1], None)
    return Parts(W_enc, tensors.take("b_enc", W_enc.shape[1]), W_dec, tensors.take("b_dec", W_dec.shape[1]))


def _refuse_scaling(tensors: Tensors) -> None:
    """SAEs for instruction-tuned models may hold factors from finetuning; where they are 1, they do nothing."""
    name = "scaling_factor"
    if name in tensors and not (tensors.take(name, None) == 1).all():
        raise tensors.refusal(name, "factors other than 1; what they multiply is not documented")


def _autoencoder(file: Path, tensors: Tensors, parts: Parts, l0: float | int | None) -> SAE:
    dtype, d_sae = tensors.dtype("b_enc"), len(parts.b_enc)
    threshold = log_threshold(tensors.take("threshold", d_sae), dtype)
    parts.fold_input_bias()
    settings = {"decoder_norm": norm_setting(parts.W_dec), "target_l0": float(l0_within(l0, d_sae))}
    return build(file, "jumprelu", settings, parts, dtype, log_threshold=threshold)


def _transcoder(file: Path, tensors: Tensors, parts: Parts, l0: float | int | None) -> SAE:
    threshold = tensors.take("threshold", len(parts.b_enc))
    W_skip: Tensor | None = None
    if SKIP in tensors:
        W_skip = tensors.take(SKIP, parts.W_enc.shape[0], parts.W_dec.shape[1])
    k, dtype = l0_within(l0, len(threshold)), tensors.dtype("b_enc")
    return transcoder(file, parts, k, dtype, W_skip=W_skip, keep_above=threshold)


def _l0_in_name(file: Path) -> int | None:
    """The mean number of active latents that the release's folder is named after."""
    found = L0_IN_NAME.search(file.parent.name)
    return int(found[1]) if found else None


FORMAT = Format(
    name=NAME,
    summary="Google DeepMind's Gemma Scope: JumpReLU SAEs and transcoders",
    looks_for=" or ".join(FILES),
    recognises=recognises,
    read=read,
)
