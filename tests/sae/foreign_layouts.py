"""Random checkpoints of other libraries in float64, and what each library's source makes of x, written densely.

Every function draws weights, and returns the files' contents with the library's forward pass as read in its source.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

D_IN, D_SAE, K = 6, 16, 3
RowsTo = Callable[[Tensor], Tensor]


class Layout(NamedTuple):
    """What lies in a folder, and what it computes."""

    config: dict[str, Any]
    tensors: dict[str, Any]
    x_hat: RowsTo


class Draw:
    """Seeded float64 weights."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def positive(self, *shape: int) -> Tensor:
        return 0.2 + torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def unit(self, rows: int, width: int) -> Tensor:
        drawn = self(rows, width)
        return drawn / drawn.norm(dim=1, keepdim=True)


def rows(n: int = 200, width: int = D_IN, seed: int = 7) -> Tensor:
    """Off centre, of no unit scale."""
    return 1.0 + 2.0 * Draw(seed)(n, width)


def top_k(values: Tensor, k: int = K) -> Tensor:
    """The k largest of each row, others 0."""
    found = values.topk(k, dim=-1)
    return torch.zeros_like(values).scatter(-1, found.indices, found.values)


# dictionary_learning 0.1.0: dictionary.py, trainers/top_k.py, batch_top_k.py, matryoshka_batch_top_k.py


def _linears(draw: Draw) -> dict[str, Tensor]:
    return {"encoder.weight": draw(D_SAE, D_IN), "decoder.weight": draw.unit(D_SAE, D_IN).t().contiguous()}


def _config(dict_class: str, **more: Any) -> dict[str, Any]:
    trainer = {"dict_class": dict_class, "activation_dim": D_IN, "dict_size": D_SAE, "lm_name": "tiny", **more}
    return {"trainer": trainer, "buffer": {"io": "out"}}


def autoencoder(seed: int) -> Layout:
    draw = Draw(seed)
    t = {**_linears(draw), "encoder.bias": draw(D_SAE), "bias": draw(D_IN)}
    t["decoder.weight"] = draw(D_IN, D_SAE)  # of any norm, as after the April update
    relu = torch.relu

    def x_hat(x: Tensor) -> Tensor:
        return relu((x - t["bias"]) @ t["encoder.weight"].t() + t["encoder.bias"]) @ t["decoder.weight"].t() + t["bias"]

    return Layout(_config("AutoEncoder"), t, x_hat)


def autoencoder_new(seed: int) -> Layout:
    draw = Draw(seed)
    t = {**_linears(draw), "encoder.bias": draw(D_SAE), "decoder.bias": draw(D_IN)}

    def x_hat(x: Tensor) -> Tensor:
        acts = torch.relu(x @ t["encoder.weight"].t() + t["encoder.bias"])
        return acts @ t["decoder.weight"].t() + t["decoder.bias"]

    return Layout(_config("AutoEncoderNew"), t, x_hat)


def gated(seed: int) -> Layout:
    draw = Draw(seed)
    t = {**_linears(draw), "decoder_bias": draw(D_IN), "r_mag": draw(D_SAE)}
    t |= {"gate_bias": draw(D_SAE), "mag_bias": draw(D_SAE)}

    def x_hat(x: Tensor) -> Tensor:
        x_enc = (x - t["decoder_bias"]) @ t["encoder.weight"].t()
        open_ = (x_enc + t["gate_bias"] > 0).to(x.dtype)
        acts = open_ * torch.relu(t["r_mag"].exp() * x_enc + t["mag_bias"])
        return acts @ t["decoder.weight"].t() + t["decoder_bias"]

    return Layout(_config("GatedAutoEncoder"), t, x_hat)


def _budgeted(draw: Draw, threshold: float) -> dict[str, Tensor]:
    t = {**_linears(draw), "encoder.bias": draw(D_SAE), "b_dec": draw(D_IN)}
    return {**t, "k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(threshold, dtype=torch.float64)}


def autoencoder_top_k(seed: int) -> Layout:
    t = _budgeted(Draw(seed), 0.9)

    def x_hat(x: Tensor) -> Tensor:
        acts = torch.relu((x - t["b_dec"]) @ t["encoder.weight"].t() + t["encoder.bias"])
        return top_k(acts) @ t["decoder.weight"].t() + t["b_dec"]

    return Layout(_config("AutoEncoderTopK", k=K), t, x_hat)


def batch_top_k(seed: int, threshold: float = 0.9) -> Layout:
    t = _budgeted(Draw(seed), threshold)

    def x_hat(x: Tensor) -> Tensor:
        acts = torch.relu((x - t["b_dec"]) @ t["encoder.weight"].t() + t["encoder.bias"])
        return (acts * (acts > t["threshold"])) @ t["decoder.weight"].t() + t["b_dec"]

    return Layout(_config("BatchTopKSAE", k=K), t, x_hat)


def batch_top_k_before_threshold(seed: int) -> Layout:
    return batch_top_k(seed, -1.0)


def _matrices(draw: Draw) -> dict[str, Tensor]:
    return {"W_enc": draw(D_IN, D_SAE), "b_enc": draw(D_SAE), "W_dec": draw.unit(D_SAE, D_IN), "b_dec": draw(D_IN)}


def matryoshka(seed: int) -> Layout:
    t = {**_matrices(Draw(seed)), "k": torch.tensor(K), "threshold": torch.tensor(0.9, dtype=torch.float64)}
    t["group_sizes"] = torch.tensor([4, 4, 8])

    def x_hat(x: Tensor) -> Tensor:
        acts = torch.relu((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"])
        return (acts * (acts > t["threshold"])) @ t["W_dec"] + t["b_dec"]

    return Layout(_config("MatryoshkaBatchTopKSAE", k=K), t, x_hat)


def jumprelu(seed: int) -> Layout:
    """Some thresholds below 0, which training does not keep them from: they keep all that is positive."""
    draw = Draw(seed)
    t = {**_matrices(draw), "threshold": draw(D_SAE)}

    def x_hat(x: Tensor) -> Tensor:
        pre = x @ t["W_enc"] + t["b_enc"]
        return torch.relu(pre * (pre > t["threshold"])) @ t["W_dec"] + t["b_dec"]

    return Layout(_config("JumpReluAutoEncoder", target_l0=4.0), t, x_hat)


DICTIONARY_LEARNING: dict[str, Callable[[int], Layout]] = {
    "AutoEncoder": autoencoder,
    "AutoEncoderNew": autoencoder_new,
    "AutoEncoderTopK": autoencoder_top_k,
    "BatchTopKSAE": batch_top_k,
    "BatchTopKSAE before its threshold": batch_top_k_before_threshold,
    "GatedAutoEncoder": gated,
    "JumpReluAutoEncoder": jumprelu,
    "MatryoshkaBatchTopKSAE": matryoshka,
}


def save_dictionary_learning(folder: Path, layout: Layout) -> Path:
    """As `trainSAE`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(layout.tensors, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps(layout.config))
    return folder


# sparsify 1.3.3: sparse_coder.py, fused_encoder.py


def sparse_coder(seed: int, *, transcode: bool = False, skip: bool = False, **config: Any) -> Layout:
    draw = Draw(seed)
    t = {"encoder.weight": draw(D_SAE, D_IN), "encoder.bias": draw(D_SAE), "W_dec": draw(D_SAE, D_IN)}
    t |= {"b_dec": draw(D_IN)} | ({"W_skip": draw(D_IN, D_IN)} if skip else {})
    told = {"d_in": D_IN, "num_latents": D_SAE, "expansion_factor": 32, "k": K, "activation": "topk"}
    told |= {"normalize_decoder": True, "multi_topk": False, "skip_connection": skip, "transcode": transcode, **config}

    def x_hat(x: Tensor) -> Tensor:
        centred = x if transcode else x - t["b_dec"]
        acts = top_k(torch.relu(centred @ t["encoder.weight"].t() + t["encoder.bias"]))
        out = acts @ t["W_dec"] + t["b_dec"]
        return out + x @ t["W_skip"].mT if skip else out

    return Layout(told, t, x_hat)


def save_sparsify(folder: Path, layout: Layout) -> Path:
    """As `SparseCoder.save_to_disk`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(layout.tensors, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps(layout.config))
    return folder


# openai/sparse_autoencoder at 764586a: model.py


def openai(seed: int, *, tied: bool = False) -> Layout:
    draw = Draw(seed)
    t: dict[str, Any] = {"pre_bias": draw(D_IN), "latent_bias": draw(D_SAE), "encoder.weight": draw(D_SAE, D_IN)}
    decoder = t["encoder.weight"].t() if tied else draw(D_IN, D_SAE)
    t |= {"decoder.linear.weight": t["encoder.weight"]} if tied else {"decoder.weight": decoder}
    t |= {"stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long), "activation": "ReLU", "activation_state_dict": {}}
    t |= {"latents_activation_frequency": torch.ones(D_SAE), "latents_mean_square": torch.zeros(D_SAE)}

    def x_hat(x: Tensor) -> Tensor:
        latents = torch.relu((x - t["pre_bias"]) @ t["encoder.weight"].t() + t["latent_bias"])
        return latents @ decoder.t() + t["pre_bias"]

    return Layout({}, t, x_hat)


# Gemma Scope's tutorial: JumpReLUSAE; Gemma Scope 2 adds the skip


def gemma_scope(seed: int, *, d_out: int = D_IN, skip: bool = False, dtype: torch.dtype = torch.float64) -> Layout:
    draw = Draw(seed)
    t = {"W_enc": draw(D_IN, D_SAE), "b_enc": draw(D_SAE), "W_dec": draw(D_SAE, d_out), "b_dec": draw(d_out)}
    t["threshold"] = draw.positive(D_SAE)
    t |= {"affine_skip_connection": draw(D_IN, d_out)} if skip else {}
    t = {name: tensor.to(dtype) for name, tensor in t.items()}

    def x_hat(x: Tensor) -> Tensor:
        pre = x @ t["W_enc"] + t["b_enc"]
        recon = ((pre > t["threshold"]) * torch.relu(pre)) @ t["W_dec"] + t["b_dec"]
        return recon + x @ t["affine_skip_connection"] if skip else recon

    return Layout({}, t, x_hat)


def save_gemma_scope(folder: Path, layout: Layout) -> Path:
    """As on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in layout.tensors.items()})
    return folder


def save_gemma_scope_2(folder: Path, layout: Layout, **config: Any) -> Path:
    """As on the hub: matrices' names small, a config beside."""
    folder.mkdir(parents=True, exist_ok=True)
    small = {name.replace("W_", "w_"): tensor.contiguous() for name, tensor in layout.tensors.items()}
    save_file(small, folder / "params.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"architecture": "jump_relu", "model_name": "gemma-v3-1b", **config})
    )
    return folder


# OpenMOSS/Language-Model-SAEs


def llama_scope(seed: int, *, norms: tuple[float, float] = (3.0, 3.0), **config: Any) -> Layout:
    """The release of 2024: `from_config` folds the norms, then the decoder norms, then a scalar threshold applies."""
    draw = Draw(seed)
    names = {"encoder.weight": draw(D_SAE, D_IN), "encoder.bias": draw(D_SAE), "decoder.weight": draw(D_IN, D_SAE)}
    t = {**names, "decoder.bias": draw(D_IN)}
    told = {**LLAMA_SCOPE, "dataset_average_activation_norm": {"in": norms[0], "out": norms[1]}, **config}

    def x_hat(x: Tensor) -> Tensor:
        factor_in, factor_out = (math.sqrt(D_IN) / norm for norm in norms)
        encoder, b_enc, decoder = t["encoder.weight"], t["encoder.bias"] / factor_in, t["decoder.weight"]
        b_dec, decoder = t["decoder.bias"] / factor_out, decoder * factor_in / factor_out
        if told["sparsity_include_decoder_norm"]:
            norm = decoder.norm(dim=0)
            encoder, b_enc, decoder = encoder * norm[:, None], b_enc * norm, decoder / norm
        pre = (x - b_dec if told["apply_decoder_bias_to_pre_encoder"] else x) @ encoder.t() + b_enc
        if told["act_fn"] == "topk" and not told["jump_relu_threshold"]:
            acts = top_k(torch.relu(pre), told["top_k"])
        else:
            acts = pre.where(pre > (0.0 if told["act_fn"] == "relu" else told["jump_relu_threshold"]), 0)
        return acts @ decoder.t() + b_dec

    return Layout(told, t, x_hat)


LLAMA_SCOPE: dict[str, Any] = {
    "device": "cuda:0",
    "seed": 42,
    "dtype": "torch.bfloat16",
    "hook_point_in": "blocks.24.hook_resid_post",
    "hook_point_out": "blocks.24.hook_resid_post",
    "use_decoder_bias": True,
    "apply_decoder_bias_to_pre_encoder": False,
    "expansion_factor": 32,
    "d_model": D_IN,
    "d_sae": D_SAE,
    "bias_init_method": "all_zero",
    "act_fn": "jumprelu",
    "jump_relu_threshold": 0.75390625,
    "norm_activation": "dataset-wise",
    "decoder_exactly_fixed_norm": False,
    "sparsity_include_decoder_norm": True,
    "use_glu_encoder": False,
    "init_decoder_norm": 0.5,
    "init_encoder_norm": None,
    "init_encoder_with_decoder_transpose": True,
    "lp": 1,
    "l1_coefficient": 8e-05,
    "l1_coefficient_warmup_steps": 78125,
    "top_k": K,
    "k_warmup_steps": 78125,
    "use_batch_norm_mse": True,
    "use_ghost_grads": False,
    "tp_size": 1,
    "ddp_size": 1,
}
"""The fields of a released hyperparams.json."""

LLAMASCOPIUM: dict[str, Any] = {
    "sae_type": "sae",
    "hook_point_in": "blocks.3.hook_resid_post",
    "hook_point_out": "blocks.3.hook_resid_post",
    "d_model": D_IN,
    "expansion_factor": D_SAE / D_IN,
    "use_decoder_bias": True,
    "act_fn": "jumprelu",
    "norm_activation": "dataset-wise",
    "sparsity_include_decoder_norm": True,
    "top_k": K,
    "use_triton_kernel": False,
    "sparsity_threshold_for_triton_spmm_kernel": 0.996,
    "jumprelu_threshold_window": 2.0,
    "use_glu_encoder": False,
    "dtype": "torch.float32",
    "device": "cuda",
}


def llamascopium(seed: int, *, norms: tuple[float, float] = (3.0, 3.0), **config: Any) -> Layout:
    """Since 2025: x is normalised, the threshold of a latent's value times its decoder norm learned there."""
    draw, told = Draw(seed), {**LLAMASCOPIUM, **config}
    t = {"W_E": draw(D_IN, D_SAE), "b_E": draw(D_SAE), "W_D": draw(D_SAE, D_IN), "b_D": draw(D_IN)}
    log = "activation_function.log_jumprelu_threshold"
    t |= {log: 0.3 * draw(D_SAE)} if told["act_fn"] == "jumprelu" else {}
    points = dict(zip((told["hook_point_in"], told["hook_point_out"]), norms, strict=True))
    held = {f"dataset_average_activation_norm.{p}": torch.tensor(n, dtype=torch.float64) for p, n in points.items()}

    def x_hat(x: Tensor) -> Tensor:
        dataset_wise = told["norm_activation"] == "dataset-wise"
        factor_in, factor_out = (math.sqrt(D_IN) / norm if dataset_wise else 1.0 for norm in norms)
        pre = (x * factor_in) @ t["W_E"] + t["b_E"]
        norm = t["W_D"].norm(dim=1) if told["sparsity_include_decoder_norm"] else torch.ones(D_SAE, dtype=torch.float64)
        score = pre * norm
        if told["act_fn"] == "jumprelu":
            score = score * (score > t[log].exp())
        else:
            score = top_k(torch.relu(score), told["top_k"]) if told["act_fn"] == "topk" else torch.relu(score)
        return ((score / norm) @ t["W_D"] + t["b_D"]) / factor_out

    return Layout(told, {**t, **held}, x_hat)


def save_llama_scope(folder: Path, layout: Layout, config: str = "hyperparams.json", name: str = "") -> Path:
    """As on the hub: weights in `checkpoints`, since 2025 beside the config."""
    file = folder / (name or "checkpoints/final.safetensors")
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(layout.tensors, file)
    (folder / config).write_text(json.dumps(layout.config))
    return folder
