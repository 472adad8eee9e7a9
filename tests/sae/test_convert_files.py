"""Reading what strangers wrote: nothing is executed, nothing overlooked, and every refusal says what and why."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sae import TopK, TopKConfig, checkpoint
from sae.convert import FORMATS, Foreign, format_of, read, writable, write
from sae.convert.files import Fields, fetch, read_fields, read_object, read_tensors
from store.errors import UsageError

torch.set_num_threads(1)


class Trap:
    """Leaves a mark where it is unpickled."""

    mark: Path

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    Trap.mark = tmp_path / "executed"
    return Trap()


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in (str(path), *words))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_a_pickle_with_code_is_refused_with_the_safe_way_and_not_run(tmp_path: Path, trap: Trap, suffix: str):
    path = tmp_path / f"weights{suffix}"
    torch.save({"W_enc": torch.ones(2), "more": trap}, path)
    refused(path, "pickle", "safetensors")
    path.write_bytes(pickle.dumps({"more": trap}))
    refused(path, "pickle", "safetensors")
    assert not trap.mark.exists()


def test_an_npz_with_objects_is_refused_and_not_run(tmp_path: Path, trap: Trap):
    path = tmp_path / "params.npz"
    np.savez(path, W_enc=np.ones(2), more=np.array([trap], dtype=object))
    refused(path, "objects")
    assert not trap.mark.exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"no tensors", b"PK\x03\x04 cut off"])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.npz"])
def test_missing_files_are_named(tmp_path: Path, name: str):
    refused(tmp_path / name, "missing")


def test_other_files_are_not_opened(tmp_path: Path):
    refused(tmp_path / "a.pkl", ".safetensors")


def test_tensors_that_are_not_finite_are_named_with_their_count(tmp_path: Path):
    bad = torch.ones(2, 3)
    bad[0, 0], bad[1, 2] = torch.nan, torch.inf
    torch.save({"W_enc": bad}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "2 of 6", "W_enc")


def test_what_is_no_tensor_is_named(tmp_path: Path):
    torch.save({"W_enc": torch.ones(2), "cfg": {"k": 1}}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "'cfg'", "dict")
    torch.save([torch.ones(2)], tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "list")
    assert read_object(tmp_path / "a.pt")[0].tolist() == [1, 1]


def test_torchscript_is_refused_without_advice_to_run_it(tmp_path: Path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/constants.pkl", b"")
        archive.writestr("a/data.pkl", b"")
        archive.writestr("a/version", b"3")
    with pytest.raises(UsageError) as caught:
        read_tensors(path)
    assert "weights_only` set to `False" not in str(caught.value)


def test_arrays_and_tensors_are_read_in_float64(tmp_path: Path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "a.npz", W=values)
    torch.save({"W": torch.from_numpy(values).bfloat16()}, tmp_path / "a.pt")
    for name in ("a.npz", "a.pt"):
        tensors = read_tensors(tmp_path / name)
        assert tensors.dtype("W") == torch.float32
        assert torch.equal(tensors.take("W", 2, None), torch.from_numpy(values).double())
        tensors.nothing_left()


def test_tensors_say_which_shape_is_wrong_which_is_missing_and_which_is_left(tmp_path: Path):
    torch.save({"W": torch.ones(2, 3), "b": torch.ones(3)}, tmp_path / "a.pt")
    tensors = read_tensors(tmp_path / "a.pt")
    for shape in ((3, 2), (2,), ()):
        with pytest.raises(UsageError, match=r"W of shape \[2, 3\]"):
            tensors.take("W", *shape)
    with pytest.raises(UsageError, match=r"no tensor 'c'.*W, b"):
        tensors.take("c", 3)
    tensors.take("W", 2, 3)
    with pytest.raises(UsageError, match="holds b: this tensor is not known"):
        tensors.nothing_left()


def test_fields_say_what_is_missing_of_another_kind_or_left(tmp_path: Path):
    fields = Fields(tmp_path, {"d_in": "8", "flag": 1, "k": True, "x": 2, "none": None, "in": {"a": 1}})
    with pytest.raises(UsageError, match="no field 'd_sae'"):
        fields.take("d_sae", int)
    for name, kind in (("d_in", int), ("flag", bool), ("k", int), ("k", float)):
        with pytest.raises(UsageError, match=f"has {name}="):
            fields.take(name, kind)
    assert fields.take("x", float) == 2.0
    assert fields.take("none", int, 7) == 7
    with pytest.raises(UsageError, match=r"has in\.a=1: this field is not known"):
        fields.inside("in").nothing_left()
    rest = Fields(tmp_path, {"a": 1, "none": None})
    assert rest.told("a", "b") == {"a": 1}
    rest.nothing_left()
    with pytest.raises(UsageError, match="has mode='y': only x"):
        Fields(tmp_path, {"mode": "y"}).must_be("mode", "x", why="only x")


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, content: str):
    (tmp_path / "cfg.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"cfg\.json"):
        read_fields(tmp_path / "cfg.json")


class TestFormats:
    """The table, and recognising what is in a folder."""

    def test_our_own_checkpoints_are_a_line_in_it(self, tmp_path: Path):
        sae = TopK(TopKConfig(d_in=4, d_sae=8, k=2))
        write(tmp_path / "a", Foreign(sae, {"seed": 0}, "blocks.0.hook_resid_post", "tiny"), "monosem")
        foreign = read(tmp_path / "a")
        assert format_of(tmp_path / "a").name == "monosem"
        assert (foreign.hook_point, foreign.model) == ("blocks.0.hook_resid_post", "tiny")
        assert torch.equal(foreign.sae.W_enc, sae.W_enc)
        assert checkpoint.load(tmp_path / "a").cfg == sae.cfg

    def test_an_unknown_folder_lists_what_was_looked_for(self, tmp_path: Path):
        with pytest.raises(UsageError) as caught:
            read(tmp_path)
        assert all(f"{name}: {line.looks_for}" in str(caught.value) for name, line in FORMATS.items())

    def test_a_folder_of_checkpoints_names_some(self, tmp_path: Path):
        checkpoint.save(tmp_path / "layers" / "one", TopK(TopKConfig(d_in=4, d_sae=8, k=2)))
        with pytest.raises(UsageError, match="layers/one"):
            read(tmp_path)

    def test_a_file_of_a_checkpoint_names_its_folder(self, tmp_path: Path):
        checkpoint.save(tmp_path, TopK(TopKConfig(d_in=4, d_sae=8, k=2)))
        with pytest.raises(UsageError, match="give its folder"):
            read(tmp_path / checkpoint.TENSORS_FILE)

    def test_nothing_there_and_no_such_format_are_said(self, tmp_path: Path):
        with pytest.raises(UsageError, match="does not exist"):
            read(tmp_path / "nope")
        for name in ("nope", "Saelens"):
            with pytest.raises(UsageError, match="choose one of"):
                read(tmp_path, name)
            with pytest.raises(UsageError, match="choose one of"):
                write(tmp_path, Foreign(TopK(TopKConfig(d_in=4, d_sae=8, k=2)), {}), name)

    def test_two_that_may_be_it_are_both_named(self, tmp_path: Path):
        checkpoint.save(tmp_path, TopK(TopKConfig(d_in=4, d_sae=8, k=2)))
        (tmp_path / "sae_weights.safetensors").touch()
        with pytest.raises(UsageError, match=r"monosem or saelens.*--from"):
            read(tmp_path)

    def test_every_line_is_under_its_own_name_and_says_what_it_is(self):
        for name, line in FORMATS.items():
            assert line.name == name
            assert line.summary
            assert line.looks_for
        assert {"monosem", "saelens"} <= set(writable()) <= set(FORMATS)


class TestFetch:
    """Where checkpoints are fetched from; the hub itself is not there."""

    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict]]:
        asked: list[tuple[str, dict]] = []
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "cfg.json").write_text(json.dumps({}))

        def snapshot(name: str, **options) -> str:
            asked.append((name, options))
            return str(tmp_path)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        return asked

    def test_a_folder_in_a_repository_is_fetched_alone(self, hub: list, tmp_path: Path):
        assert fetch("hub:org/name/a/b", "v2") == tmp_path / "a" / "b"
        ((name, options),) = hub
        assert (name, options["revision"]) == ("org/name", "v2")
        assert all(pattern.startswith("a/b/*.") for pattern in options["allow_patterns"])

    def test_of_a_whole_repository_only_what_lies_on_top_is_fetched(self, hub: list, tmp_path: Path):
        assert fetch("hub:org/name") == tmp_path
        assert hub[0][1]["ignore_patterns"] == ["*/*"]

    def test_a_single_file_is_fetched_alone(self, hub: list, tmp_path: Path):
        (tmp_path / "a" / "w.pt").touch()
        assert fetch("hub:org/name/a/w.pt") == tmp_path / "a" / "w.pt"
        assert hub[0][1]["allow_patterns"] == ["a/w.pt"]

    def test_a_folder_that_is_not_there_is_named(self, hub: list):
        with pytest.raises(UsageError, match=r"no checkpoint in 'c'.*hub:OWNER/NAME/SUB/FOLDER"):
            fetch("hub:org/name/c")

    @pytest.mark.parametrize("reference", ["hub:", "hub:name", "hub:/name"])
    def test_a_reference_without_owner_and_name_is_refused(self, reference: str):
        with pytest.raises(UsageError, match="hub:OWNER/NAME"):
            fetch(reference)

    def test_a_path_is_itself(self, tmp_path: Path):
        assert fetch(str(tmp_path)) == tmp_path
        with pytest.raises(UsageError, match="does not exist"):
            fetch(str(tmp_path / "nope"))
