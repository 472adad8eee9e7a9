"""Checkpoints of dictionary_learning and sparsify: what the libraries themselves wrote, and random ones, both ways."""

import json
from pathlib import Path
from typing import Any

import foreign_layouts as layouts
import pytest
import torch
from foreign_layouts import DICTIONARY_LEARNING, rows, save_dictionary_learning, save_sparsify, sparse_coder
from safetensors.torch import load_file
from variants import CASES, D_IN, moved
from variants import rows as our_rows

from sae import VARIANTS, EncoderSAE, SkipTranscoder, SkipTranscoderConfig, Transcoder, TranscoderConfig
from sae.convert import Foreign, format_of, read, write
from sae.ksparse import KSparse
from store.errors import UsageError

FIXTURES = Path(__file__).parent / "foreign"
EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}
MADE_BY_LIBRARIES = sorted(
    folder.name for folder in FIXTURES.iterdir() if folder.name.startswith(("dictionary_learning", "sparsify"))
)


def reconstructed(foreign: Foreign, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return foreign.sae(x).x_hat


@pytest.mark.parametrize("name", MADE_BY_LIBRARIES)
def test_what_a_library_wrote_reconstructs_as_it_did(name: str):
    answers = load_file(FIXTURES / name / "answers.safetensors")
    found = reconstructed(read(FIXTURES / name), answers["x"])
    torch.testing.assert_close(found, answers["x_hat"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MADE_BY_LIBRARIES)
def test_what_a_library_wrote_is_the_same_once_written_again(name: str, tmp_path: Path):
    foreign, x = read(FIXTURES / name), load_file(FIXTURES / name / "answers.safetensors")["x"]
    write(tmp_path, foreign, format_of(FIXTURES / name).name)
    again = read(tmp_path)
    torch.testing.assert_close(reconstructed(again, x), reconstructed(foreign, x), rtol=1e-5, atol=1e-5)
    assert (again.model, type(again.sae)) == (foreign.model, type(foreign.sae))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DICTIONARY_LEARNING)
def test_dictionary_learning_classes_are_their_dense_formulas(name: str, seed: int, tmp_path: Path):
    layout = DICTIONARY_LEARNING[name](seed)
    foreign = read(save_dictionary_learning(tmp_path, layout))
    torch.testing.assert_close(reconstructed(foreign, rows()), layout.x_hat(rows()), **EXACT)
    assert foreign.model == "tiny"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("transcode", "skip"), [(False, False), (False, True), (True, False), (True, True)])
def test_sparse_coders_are_their_dense_formulas(transcode: bool, skip: bool, seed: int, tmp_path: Path):
    layout = sparse_coder(seed, transcode=transcode, skip=skip)
    foreign = read(save_sparsify(tmp_path / "layers.3.mlp", layout))
    torch.testing.assert_close(reconstructed(foreign, rows()), layout.x_hat(rows()), **EXACT)
    assert foreign.hook_point == "layers.3.mlp"


WRITABLE = [
    *("batch_topk", "batch_topk free", "gated", "gated free", "jumprelu", "jumprelu tanh", "matryoshka"),
    *("matryoshka sampled", "relu", "relu free", "threshold", "topk", "topk free"),
]


@pytest.mark.parametrize("case", WRITABLE)
def test_ours_come_back_from_dictionary_learning(case: str, tmp_path: Path):
    sae = seen(case)
    write(tmp_path, Foreign(sae, {}, "blocks.1.hook_resid_post", "tiny"), "dictionary_learning")
    again = read(tmp_path)
    torch.testing.assert_close(reconstructed(again, our_rows()), reconstructed(Foreign(sae, {}), our_rows()), **EXACT)
    assert (again.hook_point, again.model) == ("blocks.1.hook_resid_post", "tiny")


def test_prefixes_are_group_sizes(tmp_path: Path):
    sae = seen("matryoshka")
    write(tmp_path, Foreign(sae, {}), "dictionary_learning")
    trainer = json.loads((tmp_path / "config.json").read_text())["trainer"]
    assert trainer["group_sizes"] == [5, 15, 20]
    assert read(tmp_path).sae.cfg.fixed == sae.cfg.fixed


@pytest.mark.parametrize("case", ["topk", "topk free", "topk multi"])
def test_ours_come_back_from_sparsify(case: str, tmp_path: Path):
    sae = seen(case)
    write(tmp_path, Foreign(sae, {}), "sparsify")
    torch.testing.assert_close(
        reconstructed(read(tmp_path), our_rows()), reconstructed(Foreign(sae, {}), our_rows()), **EXACT
    )


@pytest.mark.parametrize("cls", [Transcoder, SkipTranscoder])
def test_transcoders_come_back_from_sparsify(cls: type[EncoderSAE], tmp_path: Path):
    config = SkipTranscoderConfig if cls is SkipTranscoder else TranscoderConfig
    sae = cls(config(d_in=D_IN, d_sae=40, d_out=D_IN, k=4)).double()
    sae.initialise(our_rows(), None, 3.0 * our_rows(seed=5) + 1)
    for parameter in sae.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    write(tmp_path, Foreign(sae, {}), "sparsify")
    torch.testing.assert_close(
        reconstructed(read(tmp_path), our_rows()), reconstructed(Foreign(sae, {}), our_rows()), **EXACT
    )


def seen(case: str) -> EncoderSAE:
    """After a step, so that what has a threshold knows it."""
    sae = moved(case)
    if isinstance(sae, KSparse):
        sae.observe(sae.loss(our_rows()))
    return sae


NOT_HELD = {
    "dictionary_learning": {
        "crosscoder": "Crosscoder",
        "discrete": "Discrete",
        "matryoshka row": "keep=row",
        "transcoder": "Transcoder",
    },
    "sparsify": {"gated": "Gated", "transcoder": "d_out=7", "transcoder unit batch": "keep=batch", "relu": "ReLU"},
}


@pytest.mark.parametrize(("library", "case"), [(name, case) for name, cases in NOT_HELD.items() for case in cases])
def test_what_a_library_cannot_hold_is_refused_by_name(library: str, case: str, tmp_path: Path):
    with pytest.raises(UsageError, match=NOT_HELD[library][case]) as caught:
        write(tmp_path, Foreign(moved(case), {}), library)
    assert len(str(caught.value).splitlines()) == 1
    assert case.split()[0] in VARIANTS
    assert case in CASES


REFUSED_IN_SPARSIFY: dict[str, tuple[dict[str, Any], str]] = {
    "groupmax": ({"activation": "groupmax"}, "activation='groupmax'"),
    "signed": ({"signed": True}, "signed=True"),
    "embed_skip": ({"embed_skip": True}, "embed_skip=True"),
    "gram_lookup": ({"gram_lookup": True}, "gram_lookup=True"),
    "k is a word": ({"k": "many"}, "k='many'"),
    "k beyond the dictionary": ({"k": 99}, "k=99"),
    "unknown": ({"whiten": True}, "whiten=True"),
    "other width": ({"d_in": 5}, r"encoder.weight of shape \[16, 6\]"),
    "skip without W_skip": ({"skip_connection": True}, "W_skip"),
}


@pytest.mark.parametrize("what", REFUSED_IN_SPARSIFY)
def test_sparse_coders_that_cannot_be_represented_are_refused_by_name(what: str, tmp_path: Path):
    config, message = REFUSED_IN_SPARSIFY[what]
    refused(save_sparsify(tmp_path, sparse_coder(0)._replace(config={**sparse_coder(0).config, **config})), message)


def test_a_coder_without_decoder_is_refused(tmp_path: Path):
    layout = sparse_coder(0)
    del layout.tensors["W_dec"]
    refused(save_sparsify(tmp_path, layout), "W_dec")


def with_trainer(**changes: Any) -> layouts.Layout:
    layout = layouts.autoencoder_top_k(0)
    return layout._replace(config={**layout.config, "trainer": {**layout.config["trainer"], **changes}})


REFUSED_IN_DICTIONARY_LEARNING = {
    "class": (with_trainer(dict_class="CrossCoder"), "trainer.dict_class='CrossCoder'"),
    "k that differs": (with_trainer(k=5), "trainer.k=5"),
    "k beyond the dictionary": (
        layouts.autoencoder_top_k(0)._replace(
            tensors={**layouts.autoencoder_top_k(0).tensors, "k": torch.tensor(99)}, config=with_trainer(k=99).config
        ),
        "k=99",
    ),
    "width": (with_trainer(activation_dim=5), r"encoder.weight of shape \[16, 6\]"),
    "mapping": (
        layouts.autoencoder(0)._replace(config={**layouts.autoencoder(0).config, "buffer": {"io": "in_and_out"}}),
        "buffer.io='in_and_out'",
    ),
    "groups": (
        layouts.matryoshka(0)._replace(tensors={**layouts.matryoshka(0).tensors, "group_sizes": torch.tensor([4, 4])}),
        "group_sizes",
    ),
    "unknown tensor": (
        layouts.autoencoder(0)._replace(tensors={**layouts.autoencoder(0).tensors, "W_skip": torch.zeros(6, 6)}),
        "W_skip",
    ),
}


@pytest.mark.parametrize("what", REFUSED_IN_DICTIONARY_LEARNING)
def test_dictionaries_that_cannot_be_represented_are_refused_by_name(what: str, tmp_path: Path):
    layout, message = REFUSED_IN_DICTIONARY_LEARNING[what]
    refused(save_dictionary_learning(tmp_path, layout), message)


def test_an_older_state_dict_takes_k_from_its_config(tmp_path: Path):
    layout = layouts.autoencoder_top_k(0)
    for name in ("k", "threshold"):
        del layout.tensors[name]
    foreign = read(save_dictionary_learning(tmp_path, layout))
    torch.testing.assert_close(reconstructed(foreign, rows()), layout.x_hat(rows()), **EXACT)


def test_a_checkpoint_of_a_run_is_read_with_the_config_above_it(tmp_path: Path):
    layout = layouts.autoencoder(0)
    save_dictionary_learning(tmp_path, layout)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "ae.pt").rename(tmp_path / "checkpoints" / "ae_500.pt")
    foreign = read(tmp_path / "checkpoints" / "ae_500.pt")
    torch.testing.assert_close(reconstructed(foreign, rows()), layout.x_hat(rows()), **EXACT)


def test_damage_is_one_line(tmp_path: Path):
    layout = layouts.autoencoder(0)
    layout.tensors["bias"][2] = torch.nan
    refused(save_dictionary_learning(tmp_path / "nan", layout), "NaN")
    folder = save_dictionary_learning(tmp_path / "code", layouts.autoencoder(0))
    torch.save({"encoder.weight": Code()}, folder / "ae.pt")
    refused(folder, "run code")
    (folder / "ae.pt").write_bytes(b"not what it says")
    refused(folder, "ae.pt")
    (folder / "ae.pt").unlink()
    refused(folder, "ae.pt is missing")


class Code:
    """What a pickle could run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("run",)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(folder, "sparsify" if (folder / "cfg.json").exists() else "dictionary_learning")
    assert len(str(caught.value).splitlines()) == 1
