"""Llama Scope and other dictionaries of OpenMOSS: safetensors beside `hyperparams.json`, later `config.json`.

With n_in = sqrt(d) / average norm of x, n_out likewise of what is reconstructed, and ‖D_i‖ where the sparsity includes
decoder norms: z = E (n_in x − [b_D]) + b_E, a = z where z ‖D_i‖ is above its threshold, or among the k largest;
y_hat = (D a + b_D) / n_out. All is linear in x, so that it folds: b_E / n_in, D n_in / n_out, b_D / n_out. A scalar
`jump_relu_threshold` (the release of 2024) is for what was folded so; `log_jumprelu_threshold` for normalised x.

Read: OpenMOSS/Language-Model-SAEs `src/lm_saes/sae.py` as of late 2024 (`from_config`, which folds the releases) and at
00366e2, `activation_functions.py` at 306d0ba; `src/llamascopium/models/sae.py` and `sparse_dictionary.py` at 0f0d564.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae.base import SAE
from sae.convert.files import SUFFIXES, Fields, Tensors, json_in, read_fields, read_object, read_tensors
from sae.convert.foreign import Foreign, Format
from sae.convert.parts import Parts, build, log_threshold
from sae.convert.weights import l0_within, norm_setting, transcoder
from store.errors import UsageError

NAME = "llama_scope"
CONFIG_FILES = ("hyperparams.json", "config.json")
WEIGHTS = tuple(
    f"{name}.{suffix}"
    for name in ("sae_weights", "checkpoints/pruned", "checkpoints/final", "final")
    for suffix in ("safetensors", "pt")
)
"""In the order in which its own loader looks; the last are for files that were copied out of their folder."""
NORMS = "dataset_average_activation_norm"
LOG_THRESHOLD = ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold")
TOLD = ("hook_point_in", "hook_point_out", "expansion_factor", "d_sae", "dtype", "norm_activation", NORMS)
TRAINING = (
    *("device", "seed", "strict_loading", "sae_pretrained_name_or_path", "tp_size", "ddp_size"),
    *("bias_init_method", "init_decoder_norm", "init_encoder_norm", "init_encoder_with_decoder_transpose"),
    *("decoder_exactly_fixed_norm", "force_unit_decoder_norm", "lp", "l1_coefficient", "l1_coefficient_warmup_steps"),
    *("initial_k", "k_warmup_steps", "use_batch_norm_mse", "use_ghost_grads", "jumprelu_threshold_window"),
    *("use_triton_kernel", "sparsity_threshold_for_triton_spmm_kernel"),
)
"""Fields that only training, or how fast it runs, depends on."""


class Scales(NamedTuple):
    """What x and its reconstruction are multiplied by; 1 where that is folded already."""

    enter: float
    leave: float


class Gate(NamedTuple):
    """What keeps a latent."""

    kind: str
    """`relu`, `topk` or `jumprelu`."""
    k: int
    """For `topk`; of others, what training aimed at."""
    threshold: Tensor | None
    """For `jumprelu`: of each latent's value, once everything is folded."""
    weighs: bool
    """Whether values count times their decoder norm where they compete."""


def recognises(source: Path) -> bool:
    """Whether a config names an activation function and the width of the model."""
    config = _config_file(source)
    return config is not None and {"act_fn", "d_model"} <= json_in(config).keys()


def read(source: Path) -> Foreign:
    """The dictionary in a folder, or in one file of weights.

    Raises:
        UsageError: a file is missing or damaged, or holds what cannot be represented.
    """
    fields = read_fields(_config_file(source) or source / CONFIG_FILES[0])
    tensors = _tensors(source)
    fields.must_be("sae_type", "sae", why="only SAEs and transcoders are read")
    fields.must_be("use_glu_encoder", False, why="a second encoder scales the first one's result: no variant has one")
    hook_in = fields.take("hook_point_in", str, None)
    hook_out = fields.take("hook_point_out", str, hook_in)
    parts, gate = _folded(fields, tensors, hook_in, hook_out)
    make = _autoencoder if hook_in == hook_out else _transcoder
    sae = make(tensors, parts, gate)
    subtracts = fields.values.get("apply_decoder_bias_to_pre_encoder") is True
    folded: dict[str, Any] = {} if subtracts or hook_in != hook_out else {"b_dec not subtracted from x": True}
    told = fields.told(*TOLD, *TRAINING)
    if told.get("norm_activation") == "dataset-wise":
        folded["norm_activation"] = "dataset-wise"
    origin = {"format": NAME, "folded": folded, **told}
    tensors.nothing_left()
    fields.nothing_left()
    return Foreign(sae, origin, hook_in, None, None if hook_in == hook_out else hook_out)


def _config_file(source: Path) -> Path | None:
    """In the folder; of a file of weights, beside it or above its folder `checkpoints`."""
    folders = [source] if source.is_dir() else [source.parent, source.parent.parent]
    found = [folder / name for folder in folders for name in CONFIG_FILES if (folder / name).is_file()]
    return found[0] if found else None


def _tensors(source: Path) -> Tensors:
    files = [source] if source.suffix in SUFFIXES else [source / name for name in WEIGHTS]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UsageError(f"{source} has none of {', '.join(WEIGHTS)}: give the folder of one dictionary")
    if file.suffix == ".safetensors":
        return read_tensors(file)
    held = read_object(file)
    if not isinstance(held, Mapping) or not isinstance(held.get("sae"), Mapping):
        raise UsageError(f"{file} has no 'sae' with tensors by name: it is not a checkpoint of this library")
    return Tensors.of(file, held["sae"])


def _folded(fields: Fields, tensors: Tensors, hook_in: str | None, hook_out: str | None) -> tuple[Parts, Gate]:
    """Tensors as variants have them, for raw x: the encoder subtracts b_dec, or nothing where x maps to another y."""
    d_model = fields.take("d_model", int)
    d_sae = fields.take("d_sae", int, None) or int(d_model * fields.take("expansion_factor", float))
    parts = _parts(fields, tensors, d_model, d_sae)
    scales = _scales(fields, tensors, d_model, hook_in, hook_out)
    subtracts = fields.take("apply_decoder_bias_to_pre_encoder", bool, "encoder.weight" in tensors)
    subtracts = subtracts and fields.values.get("use_decoder_bias", True)
    if subtracts and hook_in != hook_out:
        raise fields.refusal(
            "apply_decoder_bias_to_pre_encoder", "a transcoder's bias is of what it predicts, not of x"
        )
    parts.b_enc, parts.b_dec = parts.b_enc / scales.enter, parts.b_dec / scales.leave
    parts.W_dec = parts.W_dec * (scales.enter / scales.leave)
    if hook_in == hook_out and not subtracts:
        parts.fold_input_bias()
    return parts, _gate(fields, tensors, parts, scales)


def _parts(fields: Fields, tensors: Tensors, d_model: int, d_sae: int) -> Parts:
    """Under the names of 2024 and 2025, or of llamascopium."""
    has_bias = fields.take("use_decoder_bias", bool, True)
    if "W_E" in tensors:
        encoder, decoder = tensors.take("W_E", d_model, d_sae), tensors.take("W_D", d_sae, d_model)
        b_enc, b_dec = tensors.take("b_E", d_sae), "b_D"
    else:
        encoder = tensors.take("encoder.weight", d_sae, d_model).t()
        decoder = tensors.take("decoder.weight", d_model, d_sae).t()
        b_enc, b_dec = tensors.take("encoder.bias", d_sae), "decoder.bias"
    return Parts(encoder, b_enc, decoder, tensors.take(b_dec, d_model) if has_bias else torch.zeros_like(decoder[0]))


def _scales(fields: Fields, tensors: Tensors, d_model: int, hook_in: str | None, hook_out: str | None) -> Scales:
    """sqrt(d) over the average norms, which the config or the tensors tell."""
    why = "it divides by norms of each row or batch, which no fold stands for; read are dataset-wise and inference"
    mode = fields.must_be("norm_activation", "dataset-wise", "inference", why=why)
    told, held = fields.take(NORMS, dict, {}), _held_norms(tensors)
    if mode == "inference":
        return Scales(1.0, 1.0)

    def scale(of: str, hook_point: str | None) -> float:
        norms = {**held, **told}
        norm = next((norms[name] for name in (hook_point, of) if name in norms), None)
        if not isinstance(norm, int | float) or not 0 < norm < math.inf:
            raise UsageError(f"{fields.path} has norm_activation='dataset-wise', but {NORMS} tells no norm of '{of}'")
        return math.sqrt(d_model) / norm

    return Scales(scale("in", hook_in), scale("out", hook_out))


def _held_norms(tensors: Tensors) -> dict[str | None, float]:
    names = [name for name in tensors.tensors if name.startswith(f"{NORMS}.")]
    return {name.removeprefix(f"{NORMS}."): float(tensors.take(name)) for name in names}


def _gate(fields: Fields, tensors: Tensors, parts: Parts, scales: Scales) -> Gate:
    """What keeps latents, in units of what the folded encoder makes."""
    why = "read are relu, topk and jumprelu; batchtopk shares its budget among the rows of a batch at inference too"
    kind = fields.must_be("act_fn", "relu", "topk", "jumprelu", why=why)
    k, d_sae = fields.take("top_k", int, 50), len(parts.b_enc)
    scalar = fields.take("jump_relu_threshold", float, 0.0)
    weighs = fields.take("sparsity_include_decoder_norm", bool, True)
    norms = torch.linalg.vector_norm(parts.W_dec, dim=1) if weighs else torch.ones(d_sae, dtype=torch.float64)
    if not (norms > 0).all():
        raise tensors.refusal("the decoder", "a latent of norm 0, which sparsity_include_decoder_norm divides by")
    log = next((name for name in LOG_THRESHOLD if name in tensors), None)
    if kind == "topk" and log is None and scalar > 0:
        kind = "jumprelu"  # as its own loader does
    if kind != "jumprelu":
        return Gate(kind, k, None, weighs)
    if log is None:
        if scalar < 0:
            raise fields.refusal(
                "jump_relu_threshold", "values between it and 0 would be negative: no variant has these"
            )
        return Gate(kind, k, scalar / norms, weighs)
    # of the normalised x: folding divides values by n_in, and multiplies decoder rows by n_in / n_out
    unfolded = norms * (scales.leave / scales.enter) if weighs else norms
    return Gate(kind, k, tensors.take(log, d_sae).exp() / unfolded / scales.enter, weighs)


def _autoencoder(tensors: Tensors, parts: Parts, gate: Gate) -> SAE:
    settings: dict[str, Any] = {"decoder_norm": norm_setting(parts.W_dec)}
    dtype = _dtype(tensors)
    if gate.kind == "relu":
        return build(tensors.path, "relu", settings, parts, dtype)
    if gate.threshold is None:
        competes = "free" if gate.weighs else "unit"
        return build(tensors.path, "topk", {"decoder_norm": competes, "k": gate.k}, parts, dtype)
    settings["target_l0"] = float(l0_within(gate.k, len(parts.b_enc)))
    return build(tensors.path, "jumprelu", settings, parts, dtype, log_threshold=log_threshold(gate.threshold, dtype))


def _transcoder(tensors: Tensors, parts: Parts, gate: Gate) -> SAE:
    dtype = _dtype(tensors)
    if gate.kind == "topk":
        if gate.weighs:
            parts.fold_decoder_norms()  # transcoders compete by value alone
        return transcoder(tensors.path, parts, gate.k, dtype)
    d_sae = len(parts.b_enc)
    thresholds = torch.zeros(d_sae, dtype=torch.float64) if gate.threshold is None else gate.threshold
    return transcoder(tensors.path, parts, l0_within(gate.k, d_sae), dtype, keep_above=thresholds)


def _dtype(tensors: Tensors) -> torch.dtype:
    return tensors.dtype("W_E" if "W_E" in tensors else "encoder.weight")


FORMAT = Format(
    name=NAME,
    summary="OpenMOSS' Llama Scope, Language-Model-SAEs and llamascopium: JumpReLU, TopK, ReLU; SAEs and transcoders",
    looks_for=f"{' or '.join(CONFIG_FILES)} with act_fn and d_model",
    recognises=recognises,
    read=read,
)
