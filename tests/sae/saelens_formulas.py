"""SAELens' formulas, dense and in float64, and checkpoints of random weights to apply them to.

From saes/*.py of version 6.54.12; written out here so that the tests need no SAELens.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae import SAE
from sae.convert.saelens_config import ARCHITECTURES

D_IN, D_SAE, D_OUT = 6, 14, 5
TRANSCODERS = [name for name in ARCHITECTURES if "transcoder" in name]
SAES = [name for name in ARCHITECTURES if name not in TRANSCODERS]


def off(found: Tensor, wanted: Tensor) -> float:
    """Largest norm of a row's difference, over the rows' root mean square norm."""
    difference = (found.double() - wanted.double()).norm(dim=1).max()
    return (difference / wanted.double().square().sum(1).mean().sqrt()).item()


@torch.no_grad()
def x_hat(sae: SAE, x: Tensor) -> Tensor:
    return sae(x).x_hat


def their_pre_acts(cfg: dict[str, Any], t: dict[str, Tensor], x: Tensor) -> Tensor:
    bias = t["b_dec"] if cfg["apply_b_dec_to_input"] else 0.0
    return (x - bias) @ t["W_enc"]


def their_acts(cfg: dict[str, Any], t: dict[str, Tensor], x: Tensor) -> Tensor:
    z, kind = their_pre_acts(cfg, t, x), cfg["architecture"]
    if kind == "gated":
        magnitude = z * t["r_mag"].exp() + t["b_mag"]
        return ((z + t["b_gate"]) > 0) * torch.relu(magnitude)
    z = z + t["b_enc"]
    norms = t["W_dec"].norm(dim=1) if cfg.get("rescale_acts_by_decoder_norm") else torch.ones(D_SAE).double()
    if kind == "topk":
        top = (z * norms).topk(cfg["k"], dim=1)
        return torch.zeros_like(z).scatter(1, top.indices, torch.relu(top.values)) / norms
    if kind in ("batchtopk", "matryoshka_batchtopk"):
        scaled = z * norms
        return torch.relu(scaled) * (scaled > t["topk_threshold"]) / norms
    if "jumprelu" in kind:
        return torch.relu(z) * (z > t["threshold"])
    return torch.relu(z)


def their_x_hat(cfg: dict[str, Any], t: dict[str, Tensor], x: Tensor) -> Tensor:
    acts = their_acts(cfg, t, x)
    if cfg.get("finetuning_scaling_factor"):
        acts = acts * t["scaling_factor"]
    skip = x @ t["W_skip"].t() if "W_skip" in t else 0.0
    return acts @ t["W_dec"] + t["b_dec"] + skip


def drawn(architecture: str, seed: int, /, **fields: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint with random weights: nothing of unit norm, nothing zero."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    mapping = architecture in TRANSCODERS
    d_out = D_OUT if mapping else D_IN
    t = {"W_enc": normal(D_IN, D_SAE), "W_dec": normal(D_SAE, d_out), "b_dec": normal(d_out)}
    if architecture == "gated":
        t |= {"b_gate": normal(D_SAE), "b_mag": normal(D_SAE), "r_mag": 0.3 * normal(D_SAE)}
    else:
        t["b_enc"] = normal(D_SAE)
    if "jumprelu" in architecture:
        t["threshold"] = normal(D_SAE).abs()
    if "batchtopk" in architecture:
        t["topk_threshold"] = normal().abs()
    if "skip" in architecture:
        t["W_skip"] = normal(d_out, D_IN)
    cfg: dict[str, Any] = {
        "architecture": architecture,
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "float64",
        "device": "cpu",
        "apply_b_dec_to_input": not mapping,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12"},
    }
    kept = {"k": 3, "rescale_acts_by_decoder_norm": False}
    cfg |= {"d_out": d_out} if mapping else {}
    cfg |= kept if architecture in ("topk", "batchtopk", "matryoshka_batchtopk") else {}
    return cfg | fields, t


def saved(folder: Path, cfg: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


def some_rows(seed: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.0 + 2.0 * torch.randn(64, D_IN, generator=generator, dtype=torch.float64)
