"""What a reader is told about a checkpoint that is not whole."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save

from sae import TopK, TopKConfig, checkpoint
from store.errors import UsageError

torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(tmp_path / "ckpt", TopK(TopKConfig(d_in=4, d_sae=8, k=2)), {"seed": 0})
    return tmp_path / "ckpt"


def rewrite(folder, **changes):
    path = folder / checkpoint.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_holds_two_files_and_no_leftovers(folder):
    assert sorted(path.name for path in folder.iterdir()) == [checkpoint.CONFIG_FILE, checkpoint.TENSORS_FILE]


def test_saving_twice_replaces(folder):
    other = TopK(TopKConfig(d_in=4, d_sae=16, k=3))
    checkpoint.save(folder, other)
    assert checkpoint.load(folder).cfg == other.cfg


@pytest.mark.parametrize("name", [checkpoint.CONFIG_FILE, checkpoint.TENSORS_FILE])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UsageError, match=name):
        checkpoint.load(folder)


def test_a_missing_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        checkpoint.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not a checkpoint written by monosem"),
        ({"format_version": 99}, "upgrade monosem"),
        ({"variant": "novel"}, "variant='novel'"),
        ({"dtype": "float31"}, "float31"),
        ({"config": {"d_in": 4, "d_sae": 8, "k": 9}}, "exceeds d_sae"),
        ({"config": {"d_in": 4, "d_sae": 8, "colour": 1}}, "colour"),
        ({"config": None}, "refuses"),
        ({"config": {"d_in": 4, "d_sae": 9, "k": 2}}, "do not belong"),
        ({"tensors_sha256": "0"}, "sha256"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_description_that_does_not_fit_is_a_usage_error(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(UsageError, match=message):
        checkpoint.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_config_that_is_not_ours_is_a_usage_error(folder, text):
    (folder / checkpoint.CONFIG_FILE).write_text(text)
    with pytest.raises(UsageError, match=checkpoint.CONFIG_FILE):
        checkpoint.load(folder)


def test_truncated_tensors_are_a_usage_error(folder):
    path = folder / checkpoint.TENSORS_FILE
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UsageError, match="sha256"):
        checkpoint.load(folder)


def test_tensors_with_another_dtype_are_a_usage_error(folder):
    """Guards against a silent cast on load."""
    path = folder / checkpoint.TENSORS_FILE
    data = save({name: t.half() for name, t in load_file(path).items()})
    path.write_bytes(data)
    rewrite(folder, tensors_sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(UsageError, match="do not belong"):
        checkpoint.load(folder)


@pytest.mark.parametrize(("bad", "n"), [(float("nan"), 1), (float("inf"), 3), (-float("inf"), 2)])
def test_numbers_that_are_not_finite_are_one_line_naming_the_tensor(tmp_path, bad, n):
    sae = TopK(TopKConfig(d_in=4, d_sae=8, k=2))
    with torch.no_grad():
        sae.W_dec[0, :n] = bad
    checkpoint.save(tmp_path, sae)
    with pytest.raises(UsageError) as refusal:
        checkpoint.load(tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path / checkpoint.TENSORS_FILE} holds {n} of 32 numbers in W_dec that are NaN or infinite: the "
        "checkpoint is damaged, or of a training that diverged; use an earlier one"
    )


def test_a_write_that_fails_leaves_the_old_checkpoint(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(source, target):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(folder, TopK(TopKConfig(d_in=4, d_sae=8, k=3)))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
