"""Checkpoints of OpenAI, Gemma Scope and Llama Scope: random ones, laid out and computed as their sources say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_layouts import (
    D_IN,
    D_SAE,
    Layout,
    gemma_scope,
    llama_scope,
    llamascopium,
    openai,
    rows,
    save_gemma_scope,
    save_gemma_scope_2,
    save_llama_scope,
)

from sae import ReLU
from sae.convert import FORMATS, Foreign, format_of, read
from store.errors import UsageError

EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}
SEEDS = pytest.mark.parametrize("seed", range(3))


def agrees(foreign: Foreign, layout: Layout, **tolerance: Any) -> None:
    x = rows()
    with torch.no_grad():
        torch.testing.assert_close(foreign.sae(x).x_hat, layout.x_hat(x), **(tolerance or EXACT))


def refused(source: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(source, name)
    assert len(str(caught.value).splitlines()) == 1


# OpenAI


def saved(folder: Path, layout: Layout, **changes: Any) -> Path:
    torch.save({**layout.tensors, **changes}, folder / "8.pt")
    return folder / "8.pt"


@SEEDS
@pytest.mark.parametrize("tied", [False, True])
def test_openai_is_its_dense_formula(tied: bool, seed: int, tmp_path: Path):
    layout = openai(seed, tied=tied)
    file = saved(tmp_path, layout)
    for source in (file, tmp_path):
        foreign = read(source)
        agrees(foreign, layout)
        assert isinstance(foreign.sae, ReLU)


def test_openai_without_a_named_activation_is_relu(tmp_path: Path):
    layout = openai(0)
    del layout.tensors["activation"], layout.tensors["activation_state_dict"]
    agrees(read(saved(tmp_path, layout)), layout)


OPENAI_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "topk": ({"activation": "TopK", "activation_state_dict": {"k": 32, "postact_fn": "ReLU"}}, "normalize=True"),
    "identity": ({"activation": "Identity"}, "activation='Identity'"),
    "settings": ({"activation_state_dict": {"slope": 1}}, "slope"),
    "unknown": ({"bonus": torch.zeros(3)}, "bonus"),
    "shape": ({"pre_bias": torch.zeros(5)}, r"pre_bias of shape \[5\]"),
    "not finite": ({"pre_bias": torch.full((D_IN,), torch.nan)}, "pre_bias"),
    "not a tensor": ({"pre_bias": [1, 2]}, "pre_bias"),
}


@pytest.mark.parametrize("what", OPENAI_REFUSED)
def test_openai_is_refused_by_name(what: str, tmp_path: Path):
    changes, message = OPENAI_REFUSED[what]
    refused(saved(tmp_path, openai(0), **changes), "openai", message)


def test_openai_untied_from_what_it_says_it_is_tied_to_is_refused(tmp_path: Path):
    other = {"decoder.linear.weight": torch.zeros(D_SAE, D_IN, dtype=torch.float64)}
    refused(saved(tmp_path, openai(0, tied=True), **other), "openai", "decoder.linear.weight")


def test_openai_code_in_the_pickle_is_refused(tmp_path: Path):
    refused(saved(tmp_path, openai(0), activation=Path("x")), "openai", "run code")


# Gemma Scope


@SEEDS
def test_gemma_scope_is_its_dense_formula(seed: int, tmp_path: Path):
    layout = gemma_scope(seed)
    folder = save_gemma_scope(tmp_path / "layer_20" / "average_l0_5", layout)
    foreign = read(folder)
    agrees(foreign, layout)
    agrees(read(folder / "params.npz"), layout)
    assert foreign.sae.cfg.target_l0 == 5
    assert type(foreign.sae).__name__ == "JumpReLU"


def test_gemma_scope_in_float32_is_within_1e_5(tmp_path: Path):
    layout = gemma_scope(0, dtype=torch.float32)
    foreign, x = read(save_gemma_scope(tmp_path, layout)), rows().float()
    with torch.no_grad():
        torch.testing.assert_close(foreign.sae(x).x_hat, layout.x_hat(x), rtol=1e-5, atol=1e-5)


@SEEDS
@pytest.mark.parametrize("d_out", [D_IN, 4])
def test_gemma_scope_transcoders_are_their_dense_formula(d_out: int, seed: int, tmp_path: Path):
    layout = gemma_scope(seed, d_out=d_out)
    place = "gemma-scope-2b-pt-transcoders/layer_5/width_16k/average_l0_4" if d_out == D_IN else "layer_5"
    foreign = read(save_gemma_scope(tmp_path / place, layout))
    agrees(foreign, layout)
    assert type(foreign.sae).__name__ == "Transcoder"


def test_thresholds_of_zero_keep_all_that_is_positive(tmp_path: Path):
    layout = gemma_scope(0)
    layout.tensors["threshold"].zero_()
    agrees(read(save_gemma_scope(tmp_path / "sae", layout)), layout)
    agrees(read(save_gemma_scope(tmp_path / "transcoder", layout)), layout)


@SEEDS
@pytest.mark.parametrize("skip", [False, True])
def test_gemma_scope_2_is_its_dense_formula(skip: bool, seed: int, tmp_path: Path):
    layout = gemma_scope(seed, skip=skip)
    points: dict[str, Any] = {"hf_hook_point_in": "model.layers.3.output", "type": "sae", "l0": 5}
    points["hf_hook_point_out"] = points["hf_hook_point_in"]
    if skip:
        changes = {"hf_hook_point_out": "model.layers.4.output", "affine_connection": True, "type": "transcoder"}
        points |= changes
    foreign = read(save_gemma_scope_2(tmp_path, layout, **points))
    agrees(foreign, layout)
    assert (foreign.hook_point, foreign.model) == ("model.layers.3.output", "gemma-v3-1b")
    assert foreign.hook_point_out == ("model.layers.4.output" if skip else None)
    assert type(foreign.sae).__name__ == ("SkipTranscoder" if skip else "JumpReLU")


def changed(**tensors: torch.Tensor) -> Layout:
    layout = gemma_scope(0)
    return layout._replace(tensors={**layout.tensors, **tensors})


GEMMA_REFUSED: dict[str, tuple[Layout, str]] = {
    "scaling": (changed(scaling_factor=torch.full((D_SAE,), 2.0)), "scaling_factor"),
    "unknown": (changed(bonus=torch.zeros(3)), "bonus"),
    "shape": (changed(b_enc=torch.zeros(5, dtype=torch.float64)), r"b_enc of shape \[5\]"),
    "not finite": (changed(b_dec=torch.full((D_IN,), torch.inf)), "b_dec"),
    "layers": (changed(W_dec=torch.zeros(D_SAE, 2, D_IN)), "W_dec"),
}


@pytest.mark.parametrize("what", GEMMA_REFUSED)
def test_gemma_scope_is_refused_by_name(what: str, tmp_path: Path):
    layout, message = GEMMA_REFUSED[what]
    refused(save_gemma_scope(tmp_path, layout), "gemma_scope", message)


def test_factors_of_one_are_no_factors(tmp_path: Path):
    agrees(read(save_gemma_scope(tmp_path, changed(scaling_factor=torch.ones(D_SAE)))), gemma_scope(0))


def test_gemma_scope_transcoders_with_mixed_thresholds_are_refused(tmp_path: Path):
    layout = gemma_scope(0, d_out=4)
    layout.tensors["threshold"][3] = -1.0
    refused(save_gemma_scope(tmp_path, layout), "gemma_scope", "threshold is positive for some")


def test_gemma_scope_objects_and_missing_files_are_refused(tmp_path: Path):
    np.savez(tmp_path / "params.npz", W_enc=np.array([{}], dtype=object))
    refused(tmp_path, "gemma_scope", "objects")
    (tmp_path / "params.npz").unlink()
    refused(tmp_path, "gemma_scope", "params.npz")


def test_gemma_scope_2_is_refused_by_name(tmp_path: Path):
    refused(save_gemma_scope_2(tmp_path, gemma_scope(0), architecture="topk"), "gemma_scope", "architecture='topk'")
    refused(save_gemma_scope_2(tmp_path, gemma_scope(0), whiten=True), "gemma_scope", "whiten=True")
    half = save_gemma_scope_2(tmp_path, gemma_scope(0), affine_connection=True)
    refused(half, "gemma_scope", "affine_skip_connection")


# Llama Scope

OLD: dict[str, dict[str, Any]] = {
    "jumprelu": {},
    "jumprelu, norms not counted": {"sparsity_include_decoder_norm": False},
    "relu": {"act_fn": "relu", "jump_relu_threshold": 0.0},
    "topk": {"act_fn": "topk", "jump_relu_threshold": 0.0},
    "topk, norms not counted": {"act_fn": "topk", "jump_relu_threshold": 0, "sparsity_include_decoder_norm": False},
    "topk kept as jumprelu": {"act_fn": "topk"},
    "b_dec applied": {"apply_decoder_bias_to_pre_encoder": True},
}
NEW: dict[str, dict[str, Any]] = {
    "jumprelu": {},
    "jumprelu, norms not counted": {"sparsity_include_decoder_norm": False},
    "folded": {"norm_activation": "inference"},
    "relu": {"act_fn": "relu"},
    "topk": {"act_fn": "topk"},
    "topk, norms not counted": {"act_fn": "topk", "sparsity_include_decoder_norm": False},
}
MAPS = {"hook_point_in": "blocks.8.ln2.hook_normalized", "hook_point_out": "blocks.8.hook_mlp_out"}
SIDES: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {
    "autoencoder": ({}, (3.0, 3.0)),
    "transcoder": (MAPS, (6.0, 0.4)),
}


@SEEDS
@pytest.mark.parametrize(
    ("what", "side"), [(what, side) for what in OLD for side in SIDES if "applied" not in what or side == "autoencoder"]
)
def test_llama_scope_is_its_dense_formula(what: str, side: str, seed: int, tmp_path: Path):
    points, norms = SIDES[side]
    layout = llama_scope(seed, norms=norms, **OLD[what], **points)
    foreign = read(save_llama_scope(tmp_path, layout))
    agrees(foreign, layout)
    assert (type(foreign.sae).__name__ == "Transcoder") == (side == "transcoder")
    assert foreign.hook_point == layout.config["hook_point_in"]


@SEEDS
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("what", NEW)
def test_llamascopium_is_its_dense_formula(what: str, side: str, seed: int, tmp_path: Path):
    points, norms = SIDES[side]
    layout = llamascopium(seed, norms=norms, **NEW[what], **points)
    agrees(read(save_llama_scope(tmp_path, layout, "config.json", "sae_weights.safetensors")), layout)


def test_norms_of_in_and_out_say_the_same(tmp_path: Path):
    layout = llamascopium(0, norms=(2.0, 2.0))
    tensors = {name: tensor for name, tensor in layout.tensors.items() if "average" not in name}
    config = {**layout.config, "dataset_average_activation_norm": {"in": 2.0, "out": 2.0}}
    told = layout._replace(config=config, tensors=tensors)
    agrees(read(save_llama_scope(tmp_path, told, "config.json", "sae_weights.safetensors")), layout)


def test_a_torch_checkpoint_holds_the_same(tmp_path: Path):
    layout = llama_scope(0)
    (tmp_path / "hyperparams.json").write_text(json.dumps(layout.config))
    torch.save({"sae": layout.tensors, "version": "0.1"}, tmp_path / "sae_weights.pt")
    agrees(read(tmp_path), layout)


def no_bias(layout: Layout) -> Layout:
    del layout.tensors["decoder.bias"]
    return layout


def test_a_decoder_without_bias_has_one_of_zero(tmp_path: Path):
    layout = llama_scope(0, use_decoder_bias=False, apply_decoder_bias_to_pre_encoder=True)
    layout.tensors["decoder.bias"].zero_()
    wanted = layout.x_hat(rows())
    foreign = read(save_llama_scope(tmp_path, no_bias(layout)))
    with torch.no_grad():
        torch.testing.assert_close(foreign.sae(rows()).x_hat, wanted, **EXACT)


LLAMA_REFUSED: dict[str, tuple[Callable[[], Layout], str]] = {
    "per row": (lambda: llama_scope(0, norm_activation="token-wise"), "norm_activation='token-wise'"),
    "per batch": (lambda: llama_scope(0, norm_activation="batch-wise"), "norm_activation='batch-wise'"),
    "glu": (lambda: llama_scope(0, use_glu_encoder=True), "use_glu_encoder=True"),
    "batchtopk": (lambda: llama_scope(0, act_fn="batchtopk"), "act_fn='batchtopk'"),
    "negative threshold": (lambda: llama_scope(0, jump_relu_threshold=-0.5), "jump_relu_threshold=-0.5"),
    "crosscoder": (lambda: llama_scope(0, sae_type="crosscoder"), "sae_type='crosscoder'"),
    "no norms": (lambda: llama_scope(0, dataset_average_activation_norm=None), "dataset_average_activation_norm"),
    "norm of zero": (lambda: llama_scope(0, norms=(0.0, 1.0)), "no norm of 'in'"),
    "bias of a transcoder": (
        lambda: llama_scope(0, apply_decoder_bias_to_pre_encoder=True, **MAPS),
        "apply_decoder_bias_to_pre_encoder=True",
    ),
    "unknown": (lambda: llama_scope(0, mask=True), "mask=True"),
    "width": (lambda: llama_scope(0, d_model=5), r"encoder.weight of shape \[16, 6\]"),
    "missing tensor": (lambda: no_bias(llama_scope(0)), "decoder.bias"),
}


@pytest.mark.parametrize("what", LLAMA_REFUSED)
def test_llama_scope_is_refused_by_name(what: str, tmp_path: Path):
    make, message = LLAMA_REFUSED[what]
    refused(save_llama_scope(tmp_path, make()), "llama_scope", message)


def test_llama_scope_damage_is_one_line(tmp_path: Path):
    layout = llama_scope(0)
    layout.tensors["encoder.bias"][0] = torch.nan
    refused(save_llama_scope(tmp_path, layout), "llama_scope", "encoder.bias")
    (tmp_path / "checkpoints" / "final.safetensors").unlink()
    refused(tmp_path, "llama_scope", "final.safetensors")
    torch.save({"sae": Path("x")}, tmp_path / "sae_weights.pt")
    refused(tmp_path, "llama_scope", "run code")


# all


def test_no_layout_is_taken_for_another(tmp_path: Path):
    made = {
        "gemma_scope": save_gemma_scope(tmp_path / "a", gemma_scope(0)),
        "llama_scope": save_llama_scope(tmp_path / "b", llama_scope(0)),
        "openai": saved(tmp_path, openai(0)),
    }
    made["gemma_scope"], two = made["gemma_scope"], save_gemma_scope_2(tmp_path / "c", gemma_scope(0))
    for name, source in [*made.items(), ("gemma_scope", two)]:
        assert format_of(source) is FORMATS[name]
