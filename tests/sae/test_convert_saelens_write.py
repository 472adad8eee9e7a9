"""Variants written for SAELens: they come back, and by its formulas its files reconstruct what they did here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from saelens_formulas import D_IN, D_OUT, D_SAE, off, some_rows, their_x_hat, x_hat
from safetensors.torch import load_file

from sae import SAE, VARIANTS, EncoderSAE
from sae.convert import Foreign, read, write
from sae.convert.saelens_write import ARCHITECTURE_OF, REFUSED
from store.errors import UsageError

torch.set_num_threads(1)


def ours(case: str, dtype: torch.dtype = torch.float64) -> SAE:
    """A variant with random parameters and buffers, in some of its settings."""
    name, *more = case.split()
    widths = {"d_in": D_IN, "d_sae": D_SAE}
    known = VARIANTS[name].config_cls.__dataclass_fields__
    given: dict[str, Any] = {"d_out": D_OUT, "k": 3, "site_widths": (2, 4), "target_l0": 3.0}
    extra = {"free": {"decoder_norm": "free"}, "row": {"keep": "row"}, "batch": {"keep": "batch"}}
    fields = {key: value for key, value in given.items() if key in known} | widths
    cfg = VARIANTS[name].config_cls(**fields | {key: v for word in more for key, v in extra[word].items()})
    sae = VARIANTS[name](cfg).to(dtype)
    g = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for key, tensor in sae.state_dict().items():
            # a threshold SAE has no encoder bias
            if tensor.is_floating_point() and (key, name) != ("b_enc", "threshold"):
                noise = torch.randn(tensor.shape, generator=g, dtype=torch.float64)
                tensor.copy_(noise.abs() + 0.5 if tensor.dim() == 0 else 0.7 * noise)
    if isinstance(sae, EncoderSAE):
        sae.constrain_weights()
    return sae


REPRESENTED = [
    *(name for name in ARCHITECTURE_OF if "transcoder" not in name),
    *(f"{name} free" for name in ARCHITECTURE_OF if "transcoder" not in name),
    "matryoshka row",
    "matryoshka row free",
    "transcoder batch",
    "skip_transcoder batch",
]
BACK_AS = {"argmax_codes": "relu", "threshold": "jumprelu", "matryoshka row": "topk", "matryoshka row free": "topk"}


@pytest.mark.parametrize("case", REPRESENTED)
def test_written_variants_come_back_and_reconstruct_the_same(tmp_path: Path, case: str):
    sae, x = ours(case), some_rows()
    place = ("blocks.1.hook_resid_mid", "tiny", "blocks.1.hook_mlp_out" if "transcoder" in case else None)
    write(tmp_path / "out", Foreign(sae, {}, *place), "saelens")
    foreign = read(tmp_path / "out")
    assert (foreign.hook_point, foreign.model, foreign.hook_point_out) == place
    plain = case.removesuffix(" free").removesuffix(" batch")
    assert type(foreign.sae) is VARIANTS[BACK_AS.get(plain, plain)]
    assert off(x_hat(foreign.sae, x), x_hat(sae, x)) < 1e-12
    assert (sae(x).latents.values != 0).any()


@pytest.mark.parametrize("case", REPRESENTED)
def test_written_files_reconstruct_the_same_by_saelens_formula(tmp_path: Path, case: str):
    sae, x = ours(case), some_rows()
    write(tmp_path / "out", Foreign(sae, {}), "saelens")
    cfg = json.loads((tmp_path / "out" / "cfg.json").read_text())
    tensors = load_file(tmp_path / "out" / "sae_weights.safetensors")
    assert cfg["metadata"]["sae_lens_version"].startswith("6.")
    assert cfg["dtype"] == "float64"
    assert off(x_hat(sae, x), their_x_hat(cfg, tensors, x)) < 1e-12


@pytest.mark.parametrize("name", sorted({*REFUSED} | {"transcoder", "skip_transcoder"}))
def test_other_variants_are_refused_by_name_and_nothing_is_written(tmp_path: Path, name: str):
    with pytest.raises(UsageError, match=r"saelens cannot hold (variant=|keep='row')"):
        write(tmp_path / "out", Foreign(ours(name), {}), "saelens")
    assert not (tmp_path / "out").exists()


def test_every_variant_is_either_written_or_refused():
    assert set(ARCHITECTURE_OF) | set(REFUSED) == set(VARIANTS)
    assert not set(ARCHITECTURE_OF) & set(REFUSED)


def test_metadata_survives_both_ways(tmp_path: Path):
    folder = Path(__file__).parent / "foreign" / "saelens_standard"
    foreign = read(folder)
    write(tmp_path / "out", foreign, "saelens")
    before, after = (json.loads((f / "cfg.json").read_text())["metadata"] for f in (folder, tmp_path / "out"))
    for name in ("model_name", "hook_name", "prepend_bos", "context_size"):
        assert after[name] == before[name]


def test_heads_side_by_side_are_marked_so(tmp_path: Path):
    write(tmp_path / "out", Foreign(ours("relu"), {}, "blocks.1.attn.hook_z"), "saelens")
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["reshape_activations"] == "hook_z"
    assert read(tmp_path / "out").hook_point == "blocks.1.attn.hook_z"
