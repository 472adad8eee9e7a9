"""SAELens checkpoints reconstruct here what they do there: as the library recorded, and by its formulas written dense.

`foreign/saelens_*` were trained and saved by SAELens 6.54.12 (`python bench/convert_roundtrip.py --fixtures`), which
also recorded its own reconstructions. The library is not needed here.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from saelens_formulas import D_IN, D_SAE, SAES, drawn, off, saved, some_rows, their_x_hat, x_hat
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae import VARIANTS
from sae.convert import Foreign, read, write
from sae.convert.files import fetch, read_tensors
from sae.convert.saelens_config import ARCHITECTURES, NOT_HERE
from store.errors import UsageError

torch.set_num_threads(1)

FIXTURES = sorted((Path(__file__).parent / "foreign").glob("saelens_*"))
CLOSE = 1e-5


@pytest.mark.parametrize("folder", FIXTURES, ids=lambda folder: folder.name)
def test_what_saelens_saved_reconstructs_what_saelens_recorded(folder: Path):
    answers = load_file(folder / "answers.safetensors")
    foreign = read(folder)
    assert foreign.origin["format"] == "saelens"
    assert foreign.model == "tiny"
    assert str(foreign.hook_point).startswith("blocks.1.")
    assert off(x_hat(foreign.sae, answers["x"]), answers["x_hat"]) < CLOSE


def test_there_is_a_fixture_of_every_architecture_that_saelens_saves():
    names = {folder.name.removeprefix("saelens_").removesuffix("_unfolded") for folder in FIXTURES}
    assert set(ARCHITECTURES) <= names


@pytest.mark.parametrize(
    ("name", "variant"), [("batchtopk", "batch_topk"), ("matryoshka_batchtopk", "matryoshka"), ("topk", "topk")]
)
@pytest.mark.parametrize("state", ["", "_unfolded"])
def test_what_was_trained_as_a_variant_comes_back_as_one_with_its_k(name: str, variant: str, state: str):
    sae = read(Path(__file__).parent / "foreign" / f"saelens_{name}{state}").sae
    assert type(sae) is VARIANTS[variant]
    assert sae.cfg.k == 4
    if variant == "matryoshka":
        assert sae.cfg.fixed == (4, 8, 16)


FIELDS = [
    {},
    {"apply_b_dec_to_input": False},
    {"rescale_acts_by_decoder_norm": True},
    {"apply_b_dec_to_input": False, "rescale_acts_by_decoder_norm": True},
    {"finetuning_scaling_factor": True},
]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), architecture=st.sampled_from(ARCHITECTURES), fields=st.sampled_from(FIELDS))
def test_random_weights_reconstruct_as_by_their_formula(
    tmp_path_factory: pytest.TempPathFactory, seed: int, architecture: str, fields: dict[str, Any]
):
    kept = ("topk", "batchtopk", "matryoshka_batchtopk")
    fields = {k: v for k, v in fields.items() if architecture in kept or k != "rescale_acts_by_decoder_norm"}
    cfg, t = drawn(architecture, seed, **fields)
    if cfg.get("finetuning_scaling_factor"):
        t["scaling_factor"] = torch.linspace(0.5, 2.0, D_SAE).double()
    foreign = read(saved(tmp_path_factory.mktemp("saelens"), cfg, t))
    x = some_rows(seed)
    assert off(x_hat(foreign.sae, x), their_x_hat(cfg, t, x)) < 1e-12


@pytest.mark.parametrize("fields", [{}, {"apply_b_dec_to_input": False}], ids=["b_dec", "no b_dec"])
@pytest.mark.parametrize("architecture", SAES)
def test_a_factor_on_the_rows_is_folded(tmp_path: Path, architecture: str, fields: dict[str, Any]):
    cfg, t = drawn(architecture, 1, normalize_activations="expected_average_only_in", **fields)
    saved(tmp_path, cfg, t)
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.37, "has_whitening": False}))
    foreign = read(tmp_path)
    assert foreign.origin["folded"]["expected_average_only_in"] == 0.37
    x = some_rows()
    assert off(x_hat(foreign.sae, x), their_x_hat(cfg, t, 0.37 * x) / 0.37) < 1e-12


@pytest.mark.parametrize("fields", [{}, {"apply_b_dec_to_input": False}], ids=["b_dec", "no b_dec"])
@pytest.mark.parametrize("architecture", SAES)
def test_a_whitening_of_the_rows_is_folded(tmp_path: Path, architecture: str, fields: dict[str, Any]):
    cfg, t = drawn(architecture, 2, normalize_activations="covariance_whitening", **fields)
    saved(tmp_path, cfg, t)
    matrix = torch.eye(D_IN).double() + 0.2 * torch.randn(D_IN, D_IN).double()
    mean, inverse = torch.randn(D_IN).double(), torch.linalg.inv(matrix)
    whitening = {"mean": mean, "matrix": matrix, "inverse_matrix": inverse}
    save_file({k: v.contiguous() for k, v in whitening.items()}, tmp_path / "activation_whitening.safetensors")
    x = some_rows()
    wanted = their_x_hat(cfg, t, (x - mean) @ matrix) @ inverse + mean
    assert off(x_hat(read(tmp_path).sae, x), wanted) < 1e-10


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk", "gated"])
def test_configs_older_than_version_6_are_read(tmp_path: Path, architecture: str):
    cfg, t = drawn(architecture, 3)
    old = {
        "architecture": "standard" if architecture == "topk" else architecture,
        "activation_fn_str": "topk" if architecture == "topk" else "relu",
        "activation_fn_kwargs": {"k": 3} if architecture == "topk" else {},
        "hook_point": "blocks.1.hook_resid_post",
        "hook_point_head_index": None,
        "model_name": "gpt2-small",
        "lr": 1e-3,
        "normalize_activations": False,
        "d_in": D_IN,
        "d_sae": D_SAE,
    }
    if architecture == "jumprelu":
        t["log_threshold"] = t["threshold"].log()
        tensors = {name: tensor for name, tensor in t.items() if name != "threshold"}
    else:
        tensors = {**t, "scaling_factor": torch.ones(D_SAE).double()}  # versions 2 and 3 wrote it beside every SAE
    foreign = read(saved(tmp_path, old, tensors))
    assert (foreign.hook_point, foreign.model) == ("blocks.1.hook_resid_post", "gpt2-small")
    assert foreign.origin["metadata"]["lr"] == 1e-3
    assert off(x_hat(foreign.sae, some_rows()), their_x_hat(cfg, t, some_rows())) < 1e-12


def test_thresholds_of_zero_and_below_are_relu(tmp_path: Path):
    cfg, t = drawn("jumprelu", 4)
    t["threshold"][:7] = torch.tensor([0.0, -1.0, 0.0, -0.5, 0.0, -3.0, 0.0])
    assert off(x_hat(read(saved(tmp_path, cfg, t)).sae, some_rows()), their_x_hat(cfg, t, some_rows())) < 1e-12


def test_sixteen_bits_are_read_exactly_and_computed_in_float32(tmp_path: Path):
    cfg, t = drawn("standard", 5, dtype="bfloat16")
    half = {name: tensor.bfloat16() for name, tensor in t.items()}
    sae = read(saved(tmp_path, cfg, half)).sae
    assert sae.W_enc.dtype == torch.float32
    assert torch.equal(sae.W_enc, half["W_enc"].float())


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    **{name: ("standard", {"architecture": name}, f"architecture='{name}'") for name in NOT_HERE},
    "unknown architecture": ("standard", {"architecture": "hyper"}, "architecture='hyper'.*known are standard"),
    "constant norm": ("standard", {"normalize_activations": "constant_norm_rescale"}, "normalize_activations="),
    "layer norm": ("topk", {"normalize_activations": "layer_norm"}, "normalize_activations='layer_norm'"),
    "unknown norm": ("topk", {"normalize_activations": "other"}, "normalize_activations='other'"),
    "factor not there": (
        "gated",
        {"normalize_activations": "expected_average_only_in"},
        "normalize_activations=.*activation_scaler.json",
    ),
    "whitening not there": (
        "gated",
        {"normalize_activations": "covariance_whitening"},
        "normalize_activations=.*activation_whitening.safetensors",
    ),
    "other reshape": ("standard", {"reshape_activations": "hook_q"}, "reshape_activations='hook_q'"),
    "one head": ("standard", {"metadata": {"sae_lens_version": "6.1", "hook_head_index": 0}}, "hook_head_index=0"),
    "a new field": ("standard", {"temperature": 2}, "temperature=2"),
    "rescale where there is none": ("standard", {"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder"),
    "fractional k": ("topk", {"k": 2.5}, "k=2.5"),
    "k beyond d_sae": ("topk", {"k": 99}, "k=99 exceeds d_sae"),
    "no k": ("topk", {"k": None}, "has k=None|no field 'k'"),
    "widths": ("standard", {"d_sae": 15}, r"W_enc of shape \[6, 14\]"),
    "text for a width": ("standard", {"d_in": "6"}, "d_in='6'"),
    "transcoder with b_dec": ("transcoder", {"apply_b_dec_to_input": True}, "apply_b_dec_to_input=True"),
    "transcoder with norm": (
        "transcoder",
        {"normalize_activations": "expected_average_only_in"},
        "normalize_activations=",
    ),
    "old tanh": (
        "standard",
        {"metadata": {}, "activation_fn": "tanh-relu"},
        "activation_fn='tanh-relu'",
    ),
    "old topk gated": (
        "gated",
        {"metadata": {}, "activation_fn": "topk", "activation_fn_kwargs": {"k": 2}},
        "activation_fn='topk' with architecture='gated'",
    ),
    "old topk with more": (
        "standard",
        {"metadata": {}, "activation_fn": "topk", "activation_fn_kwargs": {"k": 2, "postact": "id"}},
        r"activation_fn_kwargs\.postact",
    ),
    "old topk without k": ("topk", {"metadata": {}, "k": None, "activation_fn": "topk"}, "has k=None|no field 'k'"),
}
"""By what is wrong: an architecture, what its config says otherwise, and what the message names."""


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_represented_is_refused_by_name(tmp_path: Path, name: str):
    architecture, fields, message = REFUSALS[name]
    cfg, t = drawn(architecture, 6, **fields)
    with pytest.raises(UsageError, match=message) as caught:
        read(saved(tmp_path, cfg, t))
    assert "\n" not in str(caught.value)


def with_tensors(
    tmp_path: Path, architecture: str, change: Callable[[dict[str, Tensor]], Any], /, **fields: Any
) -> Path:
    cfg, t = drawn(architecture, 7, **fields)
    change(t)
    return saved(tmp_path, cfg, t)


@pytest.mark.parametrize(
    ("architecture", "change", "message"),
    [
        ("standard", lambda t: t["W_enc"][1].fill_(torch.nan), "14 of 84 numbers in W_enc"),
        ("standard", lambda t: t.pop("b_enc"), "no tensor 'b_enc'"),
        ("standard", lambda t: t.update(W_more=torch.ones(2)), "holds W_more: this tensor is not known"),
        ("standard", lambda t: t.update(W_enc=t["W_enc"].t()), r"W_enc of shape \[14, 6\]"),
        ("standard", lambda t: t.update(scaling_factor=2 * torch.ones(D_SAE)), "finetuning_scaling_factor is not"),
        ("jumprelu_transcoder", lambda t: t["threshold"][:3].zero_(), "threshold is positive for some"),
    ],
)
def test_tensors_that_cannot_be_read_are_named(
    tmp_path: Path, architecture: str, change: Callable[[dict[str, Tensor]], Any], message: str
):
    with pytest.raises(UsageError, match=message):
        read(with_tensors(tmp_path, architecture, change))


def test_rows_of_norm_zero_that_saelens_divides_by_are_refused(tmp_path: Path):
    folder = with_tensors(tmp_path, "topk", lambda t: t["W_dec"][3].zero_(), rescale_acts_by_decoder_norm=True)
    with pytest.raises(UsageError, match="W_dec: rows of norm 0"):
        read(folder)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_a_factor_that_cannot_be_one_is_refused(tmp_path: Path, factor: float):
    saved(tmp_path, *drawn("standard", 8, normalize_activations="expected_average_only_in"))
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": factor}))
    with pytest.raises(UsageError, match="scaling_factor="):
        read(tmp_path)


def test_what_metadata_could_not_tell_is_none(tmp_path: Path):
    cfg, t = drawn("standard", 9)
    cfg["metadata"] |= {"l0": float("nan"), "hook_name": 3, "model_name": "", "context_size": 64}
    foreign = read(saved(tmp_path, cfg, t))
    assert (foreign.hook_point, foreign.model) == (None, None)
    assert "l0" not in foreign.origin["metadata"]
    json.dumps(foreign.origin, allow_nan=False)


def test_widths_that_metadata_garbles_are_not_believed(tmp_path: Path):
    details = {"k": 3, "matryoshka_widths": ["a", None]}
    trained = {"training_architecture": "matryoshka_batchtopk", "training_architecture_details": details}
    cfg, t = drawn("jumprelu", 9)
    cfg["metadata"] |= trained
    t["threshold"] = torch.full_like(t["threshold"], 0.7)
    assert read(saved(tmp_path, cfg, t)).sae.cfg.fixed == (D_SAE,)


def test_a_config_of_version_6_that_names_no_version_is_read_as_saelens_reads_it(tmp_path: Path):
    cfg, t = drawn("topk", 10, rescale_acts_by_decoder_norm=True)
    cfg["metadata"] = {"hook_name": "blocks.1.hook_mlp_out"}
    foreign = read(saved(tmp_path, cfg, t))
    assert foreign.hook_point == "blocks.1.hook_mlp_out"
    assert off(x_hat(foreign.sae, some_rows()), their_x_hat(cfg, t, some_rows())) < 1e-12


def test_a_factor_beside_competition_by_norm_is_refused(tmp_path: Path):
    """Whether the factor counts among the norms that latents compete by is not said, and changes which are kept."""
    cfg, t = drawn("topk", 1, rescale_acts_by_decoder_norm=True, finetuning_scaling_factor=True)
    t["scaling_factor"] = torch.linspace(0.5, 2.0, D_SAE).double()
    with pytest.raises(UsageError, match="scaling_factor: with rescale_acts_by_decoder_norm=true"):
        read(saved(tmp_path, cfg, t))


def test_a_dictionary_of_a_processed_model_is_refused(tmp_path: Path):
    """Its activations are centred: here they are not, and nothing else would say so."""
    cfg, t = drawn("topk", 1)
    cfg.setdefault("metadata", {})["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    with pytest.raises(UsageError, match="model_from_pretrained_kwargs"):
        read(saved(tmp_path, cfg, t))


@pytest.mark.parametrize("reference", ["hub:org/name//etc", "hub:org/name/../../etc", "hub:org/name/layer_*"])
def test_a_hub_reference_stays_inside_its_repository(reference: str):
    with pytest.raises(UsageError, match="no folder of a repository"):
        fetch(reference)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_numbers_that_would_be_rounded_or_lose_a_part_are_refused(tmp_path: Path, dtype: torch.dtype):
    path = tmp_path / "weights.safetensors"
    save_file({"W_enc": torch.ones(3, 4).to(dtype)}, path)
    with pytest.raises(UsageError, match="W_enc as torch"):
        read_tensors(path)


def test_our_own_format_keeps_what_a_transcoder_predicts(tmp_path: Path):
    cls = VARIANTS["transcoder"]
    sae = cls(cls.config_cls(d_in=6, d_sae=12, d_out=6, k=2))
    write(tmp_path / "own", Foreign(sae, {}, "in", "tiny", "out"), "monosem")
    found = read(tmp_path / "own")
    assert (found.hook_point, found.hook_point_out) == ("in", "out")
