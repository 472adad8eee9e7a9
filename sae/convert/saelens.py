"""SAELens (decoderesearch): `cfg.json` and `sae_weights.safetensors`, as its training or `save_inference_model` wrote.

W_enc is [d_in, d_sae] and W_dec [d_sae, d_in], as here. Read from version 6.54.12 and its handling of older configs.
docs/formats.md says field by field what maps, what is folded and what is refused.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.base import SAE
from sae.convert.files import Tensors, json_in, read_fields, read_tensors
from sae.convert.foreign import Foreign, Format
from sae.convert.parts import Parts, build, log_threshold
from sae.convert.saelens_config import CONFIG_FILE, TRANSCODERS, Config, read_config
from sae.convert.saelens_write import write
from store.errors import UsageError

NAME = "saelens"
WEIGHTS_FILE = "sae_weights.safetensors"
SCALER_FILE = "activation_scaler.json"
WHITENING_FILE = "activation_whitening.safetensors"
"""Beside a checkpoint from the middle of a training: what rows are normalised by, until it is folded at the end."""


def recognises(source: Path) -> bool:
    """Whether its weights are there, or a config that is like no other's."""
    config = json_in(source / CONFIG_FILE)
    telling = {"metadata", "hook_name", "hook_point"} & set(config)
    # llamascopium calls its weights the same
    another = any("act_fn" in json_in(source / name) for name in ("config.json", "hyperparams.json"))
    weights = (source / WEIGHTS_FILE).is_file() and not another
    return weights or ({"d_in", "d_sae"} <= set(config) and bool(telling))


def read(source: Path) -> Foreign:
    """The dictionary, on raw x.

    Raises:
        UsageError: a file is missing or damaged, or a field says what no variant can represent.
    """
    config = read_config(source)
    tensors = read_tensors(source / WEIGHTS_FILE)
    dtype = tensors.dtype("W_dec")
    folded: dict[str, Any] = {}
    parts = _parts(config, tensors, folded)
    tensors.nothing_left()
    factor = _unnormalise(config, source, parts, folded)
    sae = VARIANT_OF[config.architecture](config, parts, dtype)
    if factor is not None:
        sae.fold_scale(factor)
    said = config.metadata
    if processed := said.get("model_from_pretrained_kwargs"):
        raise UsageError(
            f"{config.path} has metadata.model_from_pretrained_kwargs={processed!r}: it reads activations of a model "
            "that was changed (centred, folded), which are not those harvested here"
        )
    kept = {name: value for name, value in said.items() if value is not None}
    origin = {"format": NAME, "architecture": config.architecture, "metadata": kept, **config.told}
    if folded:
        origin["folded"] = folded
    hook_point, model, out = (_name(said.get(key)) for key in ("hook_name", "model_name", "hook_name_out"))
    return Foreign(sae, origin, hook_point, model, out)


def _name(said: Any) -> str | None:
    return said if isinstance(said, str) and said else None


def _parts(config: Config, tensors: Tensors, folded: dict[str, Any]) -> Parts:
    """The tensors, with what applies to all architectures folded."""
    d_in, d_sae, d_out = config.d_in, config.d_sae, config.d_out
    gated = config.architecture == "gated"
    parts = Parts(
        tensors.take("W_enc", d_in, d_sae),
        tensors.take("b_gate" if gated else "b_enc", d_sae),
        tensors.take("W_dec", d_sae, d_out),
        tensors.take("b_dec", d_out),
        _own_tensors(config, tensors),
    )
    _finetuned(config, tensors, parts, folded)
    if config.rescale_acts_by_decoder_norm:
        if not (parts.W_dec != 0).any(dim=1).all():
            raise tensors.refusal(
                "W_dec", "rows of norm 0, by which rescale_acts_by_decoder_norm divides: SAELens makes NaN of them"
            )
        parts.fold_decoder_norms()
        folded["rescale_acts_by_decoder_norm"] = True
    if config.architecture in TRANSCODERS:
        if config.apply_b_dec_to_input:
            raise UsageError(f"{config.path} has apply_b_dec_to_input=True: SAELens refuses that in transcoders, too")
    elif not config.apply_b_dec_to_input:
        parts.fold_input_bias()
        folded["apply_b_dec_to_input"] = False
    return parts


def _own_tensors(config: Config, tensors: Tensors) -> dict[str, Tensor]:
    own: dict[str, Tensor] = {}
    if config.architecture == "gated":
        own = {name: tensors.take(name, config.d_sae) for name in ("b_mag", "r_mag")}
    if config.architecture.startswith("jumprelu"):
        if "log_threshold" in tensors:
            own["threshold"] = tensors.take("log_threshold", config.d_sae).exp()
        else:
            own["threshold"] = tensors.take("threshold", config.d_sae)
    if config.architecture in ("batchtopk", "matryoshka_batchtopk"):
        own["threshold"] = tensors.take("topk_threshold").expand(config.d_sae)
    if "skip" in config.architecture:
        own["W_skip"] = tensors.take("W_skip", config.d_out, config.d_in).t()
    return own


def _finetuned(config: Config, tensors: Tensors, parts: Parts, folded: dict[str, Any]) -> None:
    """Latents' own factors go into the decoder. Versions before 3 wrote factors of 1 beside every SAE."""
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name not in tensors:
            continue
        factors = tensors.take(name, config.d_sae)
        if torch.allclose(factors, torch.ones_like(factors)):
            continue
        if config.rescale_acts_by_decoder_norm:
            raise tensors.refusal(name, "with rescale_acts_by_decoder_norm=true it is not said which counts first")
        if not config.finetuning_scaling_factor:
            raise tensors.refusal(name, "factors other than 1, but finetuning_scaling_factor is not true in its config")
        parts.fold_latent_scale(factors)
        folded["finetuning_scaling_factor"] = True


def _unnormalise(config: Config, source: Path, parts: Parts, folded: dict[str, Any]) -> float | None:
    """Fold a whitening of the rows; return the factor that rows were multiplied by, if there is one."""
    mode = config.normalize_activations
    if mode == "none":
        return None
    if config.architecture in TRANSCODERS:
        raise UsageError(f"{config.path} has normalize_activations={mode!r}: not known of SAELens' transcoders")
    file = source / (SCALER_FILE if mode == "expected_average_only_in" else WHITENING_FILE)
    if not file.is_file():
        raise UsageError(
            f"{config.path} has normalize_activations={mode!r}, and no {file.name} beside it says by what rows were "
            "normalised: give the whole checkpoint folder, or have SAELens finish and fold it (save_inference_model)"
        )
    if mode == "covariance_whitening":
        whitening = read_tensors(file)
        square = [whitening.take(name, config.d_in, config.d_in) for name in ("matrix", "inverse_matrix")]
        parts.fold_whitening(whitening.take("mean", config.d_in), *square)
        folded[mode] = True
        return None
    factor = read_fields(file).take("scaling_factor", float)
    if not 0 < factor < float("inf"):
        raise UsageError(f"{file} has scaling_factor={factor}: rows cannot have been multiplied by that")
    folded[mode] = factor
    return factor


def _relu(config: Config, parts: Parts, dtype: torch.dtype) -> SAE:
    return build(config.path, "relu", {"decoder_norm": "free"}, parts, dtype)


def _gated(config: Config, parts: Parts, dtype: torch.dtype) -> SAE:
    return build(config.path, "gated", {"decoder_norm": "free"}, parts, dtype, **parts.others)


def _topk(config: Config, parts: Parts, dtype: torch.dtype) -> SAE:
    k = _whole(config.k)
    if k is None:
        raise UsageError(f"{config.path} has k={config.k}: a row keeps a whole number of latents")
    # `unit`: latents compete by z alone, as there; what their rows' norms are makes no difference
    return build(config.path, "topk", {"k": k, "decoder_norm": "unit"}, parts, dtype)


def _jumprelu(config: Config, parts: Parts, dtype: torch.dtype) -> SAE:
    """Thresholds; one threshold for all where it was trained as a BatchTopK, which is a JumpReLU once it is saved."""
    threshold, (trained_as, details) = parts.others["threshold"], config.training
    k = _whole(config.k if config.k is not None else details.get("k"))
    same = bool((threshold == threshold[0]).all()) and float(threshold[0]) >= 0
    if trained_as in BATCH_VARIANTS and same and k is not None and k <= config.d_sae:
        variant, settings = BATCH_VARIANTS[trained_as](details, config.d_sae)
        settings = {"k": k, "decoder_norm": "unit", **settings}
        return build(config.path, variant, settings, parts, dtype, threshold=threshold[0])
    settings = {"decoder_norm": "free", "target_l0": _target(details, config.d_sae)}
    return build(config.path, "jumprelu", settings, parts, dtype, log_threshold=log_threshold(threshold, dtype))


def _transcoder(config: Config, parts: Parts, dtype: torch.dtype) -> SAE:
    """ReLU and JumpReLU as BatchTopK at inference, all above one threshold: 0; or 1, latents in units of their own."""
    others = dict(parts.others)
    threshold = others.pop("threshold", torch.zeros(config.d_sae, dtype=torch.float64))
    level = torch.zeros((), dtype=torch.float64)
    if (threshold > 0).all():
        parts.W_enc, parts.b_enc = parts.W_enc / threshold, parts.b_enc / threshold
        parts.fold_latent_scale(threshold)
        level = torch.ones((), dtype=torch.float64)
    elif (threshold > 0).any():
        raise UsageError(
            f"{config.path}: threshold is positive for some latents and not for others: transcoders here have one "
            "threshold, and no scale of the latents brings these to one"
        )
    variant = "skip_transcoder" if "skip" in config.architecture else "transcoder"
    # a budget of all latents never binds: what is left out is what the threshold leaves out
    settings = {"k": config.d_sae, "keep": "batch", "decoder_norm": "free"}
    return build(config.path, variant, settings, parts, dtype, threshold=level, **others)


def _whole(k: Any) -> int | None:
    """A whole number of latents; None where it is not one."""
    return int(k) if isinstance(k, int | float) and not isinstance(k, bool) and k >= 1 and int(k) == k else None


def _target(details: dict[str, Any], d_sae: int) -> float:
    """What training aimed at, where that is said: a setting of the training here, without which there is no config."""
    target = details.get("target_l0")
    if isinstance(target, int | float) and 0 < target <= d_sae:
        return float(target)
    return float(min(32, d_sae))


def _prefixes(details: dict[str, Any], d_sae: int) -> dict[str, Any]:
    """Matryoshka's widths, of which the whole dictionary is always the last here."""
    widths = details.get("matryoshka_widths")
    if isinstance(widths, list) and widths and all(isinstance(width, int) for width in widths):
        return {"prefixes": tuple(widths)}
    return {"prefixes": (d_sae,)}


BATCH_VARIANTS: dict[str, Callable[[dict[str, Any], int], tuple[str, dict[str, Any]]]] = {
    "batchtopk": lambda details, d_sae: ("batch_topk", {}),
    "matryoshka_batchtopk": lambda details, d_sae: ("matryoshka", {"keep": "batch", **_prefixes(details, d_sae)}),
}
"""By the architecture that was trained: the variant here, and its own settings."""

VARIANT_OF: dict[str, Callable[[Config, Parts, torch.dtype], SAE]] = {
    "standard": _relu,
    "topk": _topk,
    "batchtopk": _jumprelu,
    "matryoshka_batchtopk": _jumprelu,
    "jumprelu": _jumprelu,
    "gated": _gated,
    **dict.fromkeys(TRANSCODERS, _transcoder),
}
"""By architecture."""

FORMAT = Format(
    name=NAME,
    summary="SAELens 6 and older: standard, topk, batchtopk, matryoshka, jumprelu, gated, transcoders",
    looks_for=f"{CONFIG_FILE} and {WEIGHTS_FILE}",
    recognises=recognises,
    read=read,
    write=write,
)
