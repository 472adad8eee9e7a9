"""Dictionaries written as SAELens 6.54 saves its inference SAEs: `SAE.load_from_disk` opens the folder.

A BatchTopK is written as the JumpReLU that it is at inference, as SAELens does; `metadata` says how it was trained, so
that it comes back as one. What SAELens has no architecture for is refused by the field that says so.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from sae import VARIANTS
from sae.base import SAE
from sae.convert.foreign import Foreign
from sae.convert.parts import Parts
from sae.encoder import EncoderSAE
from sae.jump import Jump
from sae.ksparse import KSparse
from sae.transcoder import Mapped, SkipTranscoder
from store.errors import UsageError
from store.files import write_hashed, write_json

VERSION = "6.54.12"
"""Of SAELens, whose files these are; it reads files that name none as those of versions before 6."""

KNOWN_METADATA = (
    "context_size",
    "dataset_path",
    "exclude_special_tokens",
    "hook_head_index",
    "model_class_name",
    "model_from_pretrained_kwargs",
    "neuronpedia_id",
    "prepend_bos",
    "seqpos_slice",
)
"""What SAELens' metadata says of where an SAE reads, besides names; taken over from the origin where that says it."""


@dataclass(frozen=True)
class Written:
    """One architecture's config and tensors."""

    architecture: str
    parts: Parts
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of its config besides the common ones."""
    trained_as: str | None = None
    """The architecture it was trained as, where that is another."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings of that training which are not in `settings`."""


def write(folder: Path, foreign: Foreign) -> None:
    """Write the two files of a SAELens SAE.

    Raises:
        UsageError: SAELens has no architecture that computes the same, or the folder cannot be written.
    """
    sae = foreign.sae
    written = written_as(sae)
    hook_point, dtype = foreign.hook_point, _dtype(sae)
    transcoder = isinstance(sae, Mapped)
    config = {
        "d_in": sae.cfg.d_in,
        "d_sae": sae.cfg.d_sae,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": not transcoder,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if hook_point and hook_point.endswith("hook_z") else "none",
        **written.settings,
        **({"d_out": sae.cfg.width_out} if transcoder else {}),
        "metadata": _metadata(foreign, written),
        "architecture": written.architecture,
    }
    data = save_tensors({name: t.to(dtype).contiguous() for name, t in _tensors(written).items()})
    write_hashed(folder / "sae_weights.safetensors", [data])
    write_json(folder / "cfg.json", config)


def written_as(sae: SAE) -> Written:
    """What SAELens would call it.

    Raises:
        UsageError: nothing, and why.
    """
    name = next(name for name, cls in VARIANTS.items() if type(sae) is cls)
    if name in REFUSED:
        raise UsageError(f"saelens cannot hold variant={name!r}: {REFUSED[name]}")
    assert isinstance(sae, EncoderSAE)
    with torch.no_grad():
        return ARCHITECTURE_OF[name](sae)


def _metadata(foreign: Foreign, written: Written) -> dict[str, Any]:
    said = foreign.origin.get("metadata", foreign.origin)
    names = {"model_name": foreign.model, "hook_name": foreign.hook_point, "hook_name_out": foreign.hook_point_out}
    kept = {name: said[name] for name in KNOWN_METADATA if said.get(name) is not None}
    trained = {"training_architecture": written.trained_as or written.architecture}
    details = {"training_architecture_details": written.training} if written.training else {}
    versions = {"sae_lens_version": VERSION, "sae_lens_training_version": None}
    variant = next(name for name, cls in VARIANTS.items() if type(foreign.sae) is cls)
    ours = {"written_by": "monosem", "monosem_variant": variant}
    return {**versions, **{name: value for name, value in names.items() if value}, **kept, **trained, **details, **ours}


def _tensors(written: Written) -> dict[str, Tensor]:
    parts = written.parts
    b_enc = "b_gate" if written.architecture == "gated" else "b_enc"
    return {"W_enc": parts.W_enc, b_enc: parts.b_enc, "W_dec": parts.W_dec, "b_dec": parts.b_dec, **parts.others}


def _dtype(sae: SAE) -> torch.dtype:
    return torch.float64 if sae.W_dec.dtype == torch.float64 else torch.float32


def _parts(sae: EncoderSAE, **others: Tensor) -> Parts:
    W_enc, b_enc, W_dec, b_dec = map(_double, (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec))
    return Parts(W_enc, b_enc, W_dec, b_dec, {name: _double(tensor) for name, tensor in others.items()})


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()


def _relu(sae: EncoderSAE) -> Written:
    return Written("standard", _parts(sae))


def _gated(sae: EncoderSAE) -> Written:
    return Written("gated", _parts(sae, b_mag=sae.get_parameter("b_mag"), r_mag=sae.get_parameter("r_mag")))


def _jump(sae: EncoderSAE) -> Written:
    assert isinstance(sae, Jump)
    threshold = _double(sae.log_threshold).exp() * _double(sae.unit)
    training = {"target_l0": sae.cfg.target_l0}
    return Written("jumprelu", _parts(sae, threshold=threshold), training=training)


def _ksparse(sae: EncoderSAE) -> Written:
    """The largest of a row as TopK, those above the threshold as JumpReLU; norms that count are folded."""
    assert isinstance(sae, KSparse)
    batch = sae.cfg.pool == "batch"
    parts = _parts(sae, threshold=sae.threshold.expand(sae.cfg.d_sae)) if batch else _parts(sae)
    if sae.handicap() is not None:
        parts.fold_decoder_norms()
    if not batch:
        return Written("topk", parts, {"k": sae.cfg.k, "rescale_acts_by_decoder_norm": False})
    prefixes = getattr(sae.cfg, "fixed", ())
    if prefixes:
        training = {"k": sae.cfg.k, "matryoshka_widths": list(prefixes)}
        return Written("jumprelu", parts, trained_as="matryoshka_batchtopk", training=training)
    return Written("jumprelu", parts, trained_as="batchtopk", training={"k": sae.cfg.k})


def _transcoder(sae: EncoderSAE) -> Written:
    """Nothing subtracted from x, no scale of y, W_skip on raw x: what is fixed here is folded."""
    assert isinstance(sae, Mapped)
    if sae.cfg.pool == "row":
        raise UsageError(
            f"saelens cannot hold keep='row', k={sae.cfg.k}: its transcoders have ReLU or thresholds, not TopK. Train "
            "with --keep batch"
        )
    mean, scale = _double(sae.x_mean), _double(sae.y_scale)
    parts = _parts(sae)
    parts.b_enc = parts.b_enc - mean @ parts.W_enc
    skip = _double(sae.W_skip) if isinstance(sae, SkipTranscoder) else None
    if skip is not None:
        parts.b_dec = parts.b_dec - mean @ skip
        parts.others["W_skip"] = scale * skip.t()
    parts.W_dec, parts.b_dec = scale * parts.W_dec, scale * parts.b_dec
    kind = "transcoder" if skip is None else "skip_transcoder"
    if not sae.threshold > 0:
        return Written(kind, parts)
    parts.others["threshold"] = _double(sae.threshold).expand(sae.cfg.d_sae)
    return Written(f"jumprelu_{kind}", parts)


REFUSED = {
    "crosscoder": "its site_widths are of several hook points, and an SAE there reads one",
    "discrete": "its latents have `levels`, and no architecture there rounds",
    "itda": "it is matching pursuit of k steps, and SAELens' stops elsewhere and has no signs",
}
"""Variants that SAELens has no architecture for."""

ARCHITECTURE_OF: dict[str, Callable[[EncoderSAE], Written]] = {
    "argmax_codes": _relu,
    "batch_topk": _ksparse,
    "gated": _gated,
    "jumprelu": _jump,
    "matryoshka": _ksparse,
    "relu": _relu,
    "skip_transcoder": _transcoder,
    "threshold": _jump,
    "topk": _ksparse,
    "transcoder": _transcoder,
}
"""By variant."""
