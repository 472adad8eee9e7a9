"""From a folder that another library wrote to a run that is shown, evaluated and indexed; and out again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.cli import main
from sae import JumpReLU, JumpReLUConfig, Transcoder, TranscoderConfig, checkpoint
from sae.convert import Foreign, read, write
from store.run import find_run, list_runs

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny harvest of two hook points."""
    root = tmp_path_factory.mktemp("convert") / "runs"
    places = ["blocks.1.{hook_resid_post,hook_resid_mid}"]
    size = ["--n-tokens", "4000", "--n-ctx", "64"]
    assert main(["harvest", "--root", str(root), "--model", "tiny", "--hook-points", *places, *size]) == 0
    return root


@pytest.fixture
def root(harvested: Path, tmp_path: Path) -> Path:
    return shutil.copytree(harvested, tmp_path / "runs")


def made(folder: Path, hook_point: str | None = HOOK, model: str | None = "tiny", d_in: int = 32) -> Path:
    """A SAELens JumpReLU of the tiny model."""
    sae = JumpReLU(JumpReLUConfig(d_in=d_in, d_sae=48, target_l0=4.0))
    with torch.no_grad():
        sae.log_threshold.fill_(-1.0)
    write(folder, Foreign(sae, {}, hook_point, model), "saelens")
    return folder


def convert(root: Path, *arguments: Any) -> int:
    return main(["convert", "--root", str(root), *map(str, arguments)])


def error_of(capsys: pytest.CaptureFixture, root: Path, *arguments: Any) -> str:
    capsys.readouterr()
    assert convert(root, *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert not any("Traceback" in line for line in lines)
    assert not list_runs(root, "sae")
    return lines[-1]


def test_a_converted_run_is_shown_evaluated_indexed_and_made_once(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    theirs = made(tmp_path / "theirs")
    assert convert(root, theirs) == 0
    printed = capsys.readouterr().out
    assert "read saelens: jumprelu, d_sae=48" in printed
    assert "heldout_fvu" in printed
    run = find_run(root, "latest", "sae")
    assert (run.config["variant"], run.config["hook_point"], run.config["other_hook_points"]) == ("jumprelu", HOOK, [])
    assert run.config["source"] == str(theirs.resolve())
    assert set(run.config["files"]) == {"cfg.json", "sae_weights.safetensors"}
    assert run.config["origin"]["metadata"]["model_name"] == "tiny"
    assert torch.equal(checkpoint.load(run.folder).W_enc, read(theirs).sae.W_enc)
    for command in (["show"], ["show", run.id], ["verify", run.id], ["index", "--sae", run.id]):
        assert main([*command, "--root", str(root)]) == 0, command
    evaluate = ["evaluate", run.id, "--only", "reconstruction", "loss", "--loss.n-sequences", "2"]
    assert main([*evaluate, "--root", str(root)]) == 0
    elsewhere = shutil.copytree(theirs, tmp_path / "elsewhere")
    assert convert(root, elsewhere, "--from", "saelens") == 0
    assert len(list_runs(root, "sae")) == 1


def test_out_and_in_again_gives_the_same_reconstructions(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    train = ["--d-sae", "48", "--k", "4", "--n-steps", "20", "--batch-size", "128", "--hook-points", HOOK]
    assert main(["train", "batch_topk", "--root", str(root), *train]) == 0
    run = find_run(root, "latest", "sae")
    capsys.readouterr()
    assert convert(root, "latest", "--to", "saelens", "--out", tmp_path / "out") == 0
    assert "sae_weights.safetensors" in capsys.readouterr().out
    metadata = json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]
    assert (metadata["model_name"], metadata["hook_name"], metadata["context_size"]) == ("tiny", HOOK, 64)
    assert convert(root, tmp_path / "out") == 0
    again = find_run(root, "latest", "sae")
    assert again.id != run.id
    assert again.config["variant"] == "batch_topk"
    x = torch.randn(32, 32)
    with torch.no_grad():
        first, second = (checkpoint.load(r.folder)(x).x_hat for r in (run, again))
    torch.testing.assert_close(first, second)
    assert convert(root, again.id, "--to", "monosem", "--out", tmp_path / "own") == 0
    assert convert(root, tmp_path / "own", "--to", "saelens", "--out", tmp_path / "out2") == 0


def test_a_transcoder_reads_one_hook_point_and_predicts_another(root: Path, tmp_path: Path):
    sae = Transcoder(TranscoderConfig(d_in=32, d_sae=48, d_out=32, k=4, keep="batch"))
    mid = "blocks.1.hook_resid_mid"
    write(tmp_path / "theirs", Foreign(sae, {}, mid, "tiny", HOOK), "saelens")
    assert convert(root, tmp_path / "theirs") == 0
    config = find_run(root, "latest", "sae").config
    assert (config["hook_point"], config["other_hook_points"]) == (mid, [HOOK])


def test_another_model_is_refused_with_both_names_unless_they_are_said_to_be_one(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    theirs = made(tmp_path / "theirs", model="gpt2-small")
    error = error_of(capsys, root, theirs)
    assert "'gpt2-small'" in error
    assert "'tiny'" in error
    assert "--same-model" in error
    assert convert(root, theirs, "--same-model") == 0


def test_one_model_by_several_names_is_one(root: Path, tmp_path: Path):
    assert convert(root, made(tmp_path / "theirs", model="hub:someone/Tiny")) == 0


def test_another_hook_point_is_refused_and_can_be_named_instead(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    theirs = made(tmp_path / "theirs", "model.layers.1")
    error = error_of(capsys, root, theirs)
    assert "'model.layers.1'" in error
    assert HOOK in error
    assert convert(root, theirs, "--hook-points", HOOK) == 0


def test_one_that_does_not_say_where_it_reads_asks(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    theirs = made(tmp_path / "theirs", None, None)
    assert "does not say where it reads" in error_of(capsys, root, theirs)
    assert "'blocks.7.nope'" in error_of(capsys, root, theirs, "--hook-points", "blocks.7.nope")
    assert "2 hook points" in error_of(capsys, root, theirs, "--hook-points", HOOK, "blocks.1.hook_resid_mid")


def test_another_width_is_refused_with_both(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    error = error_of(capsys, root, made(tmp_path / "theirs", d_in=16))
    assert "d_in=16" in error
    assert "32 wide" in error


def test_bad_checkpoints_are_refused_in_one_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    theirs = made(tmp_path / "theirs")
    weights = load_file(theirs / "sae_weights.safetensors")
    weights["W_dec"][2, 3] = torch.nan
    save_file(weights, theirs / "sae_weights.safetensors")
    assert "1 of 1536 numbers in W_dec" in error_of(capsys, root, theirs)
    config = theirs / "cfg.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architecture": "temporal"}))
    assert "architecture='temporal'" in error_of(capsys, root, theirs)
    assert "no checkpoint of a known format" in error_of(capsys, root, root)
    assert "does not exist" in error_of(capsys, root, tmp_path / "nope")
    assert "no format 'nope'" in error_of(capsys, root, theirs, "--from", "nope")


def test_writing_is_refused_where_it_would_lose_something(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    theirs, out = made(tmp_path / "theirs"), tmp_path / "out"
    assert "is there already" in error_of(capsys, root, theirs, "--to", "saelens", "--out", theirs)
    assert "give both" in error_of(capsys, root, theirs, "--to", "saelens")
    assert "give both" in error_of(capsys, root, theirs, "--out", out)
    assert "no format 'nope'" in error_of(capsys, root, theirs, "--to", "nope", "--out", out)
    assert "no finished sae run 'nope'" in error_of(capsys, root, "nope", "--to", "saelens", "--out", out)
    assert not out.exists()
    train = ["--d-sae", "48", "--k", "4", "--n-steps", "5", "--batch-size", "128", "--hook-points", HOOK]
    assert main(["train", "discrete", "--root", str(root), *train]) == 0
    assert convert(root, "latest", "--to", "saelens", "--out", out) == 2
    assert "variant='discrete'" in capsys.readouterr().err
    assert not out.exists()


def test_one_that_explains_nothing_is_said_to(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    sae = JumpReLU(JumpReLUConfig(d_in=32, d_sae=48, target_l0=4.0))
    with torch.no_grad():
        sae.b_dec.fill_(100.0)
    write(tmp_path / "theirs", Foreign(sae, {}, HOOK, "tiny"), "saelens")
    assert convert(root, tmp_path / "theirs") == 0
    assert "worse than the mean" in caplog.text
