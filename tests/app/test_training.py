"""The training job: killed at any moment it ends with the same bytes; what cannot be trained is one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from app.cli import main
from app.loggers import LOGGERS, open_loggers
from sae import VARIANTS, checkpoint
from sae.training_checkpoint import checkpoints
from store.errors import UsageError
from store.run import find_run, list_runs

torch.set_num_threads(1)

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
TINY = ("--model", "tiny", "--corpus", "stories", "--n-tokens", "3000", "--n-ctx", "64")
SMALL = ("--d-sae", "64", "--n-steps", "30", "--batch-size", "128", "--init-rows", "256")


@pytest.fixture(scope="module")
def harvested(tmp_path_factory) -> Path:
    """Two hook points of the tiny model; each test trains into it under settings of its own."""
    root = tmp_path_factory.mktemp("training") / "runs"
    assert main(["harvest", *TINY, "--hook-points", *HOOKS, "--root", str(root)]) == 0
    return root


def trained(root: Path, *arguments: str) -> Path:
    """The folder of a finished run."""
    assert main(["train", *arguments, "--root", str(root)]) == 0
    return list_runs(root, "sae")[-1].folder


def refused(capsys, root: Path, *arguments: str) -> str:
    """The one line."""
    assert main(["train", *arguments, "--root", str(root)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def hook_points(variant: str) -> tuple[str, ...]:
    return HOOKS if variant in {"crosscoder", "transcoder", "skip_transcoder"} else HOOKS[1:]


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_variant_trains_from_the_command_line(harvested, variant):
    if variant == "itda":
        folder = trained(harvested, "itda", "--k", "4", "--target-cos", "0.8", "--hook-points", HOOKS[1])
        assert find_run(harvested, str(folder), "sae").results["d_sae"] == checkpoint.load(folder).cfg.d_sae
        return
    folder = trained(harvested, variant, *SMALL, "--hook-points", *hook_points(variant))
    run = find_run(harvested, str(folder), "sae")
    assert run.results["n_steps"] == 30
    assert 0 < run.results["heldout_fvu"] < 2
    assert ("heldout_bits_per_row" in run.results) == (variant in {"discrete", "argmax_codes"})
    assert run.config["variant"] == variant
    assert type(checkpoint.load(folder)) is VARIANTS[variant]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert not checkpoints(folder / ".checkpoints")


@pytest.mark.parametrize("command", ["evaluate", "index"])
@pytest.mark.parametrize("variant", ["transcoder", "crosscoder"])
def test_what_reads_several_hook_points_is_not_taken_for_an_sae_of_one(harvested, capsys, variant, command):
    """A transcoder between places of one width would be measured against its own input."""
    folder = trained(harvested, variant, *SMALL, "--k", "6", "--hook-points", *HOOKS)
    sae = [folder.name] if command == "evaluate" else ["--sae", folder.name]
    assert main([command, *sae, "--root", str(harvested)]) == 2
    assert "SAEs of one hook point" in capsys.readouterr().err.splitlines()[-1]


def test_a_crosscoder_reads_harvests_of_the_same_tokens(harvested, tmp_path):
    """Two models in one dictionary: here one model twice, its vectors stored in two dtypes."""
    root = tmp_path / "runs"
    shutil.copytree(harvested / "activations", root / "activations")
    assert main(["harvest", *TINY, "--hook-points", HOOKS[0], "--dtype", "float32", "--root", str(root)]) == 0
    first, second = (run.id for run in list_runs(root, "activations"))
    where = ("--activations", first, second, "--hook-points", HOOKS[1], HOOKS[0])
    run = find_run(root, str(trained(root, "crosscoder", *SMALL, "--k", "7", *where)), "sae")
    assert run.inputs == {"activations": first, "activations_1": second}
    assert run.results["heldout_fvu"] < 1


def test_a_killed_run_goes_on_to_the_same_bytes(harvested, tmp_path):
    """kill −9 after a checkpoint: what is there afterwards is what an uninterrupted run leaves."""
    arguments = ["relu", *SMALL, "--n-steps", "400", "--hook-points", HOOKS[1], "--resample-at", "0.5"]
    straight = trained(harvested, *arguments, "--checkpoint-every", "0")
    wanted = {name: (straight / name).read_bytes() for name in ("sae.safetensors", "log.jsonl")}

    root = tmp_path / "runs"
    (root / "sae").mkdir(parents=True)
    (root / "activations").symlink_to(harvested / "activations")
    command = [str(Path(sys.executable).with_name("monosem")), "train", *arguments, "--checkpoint-every", "20"]
    process = subprocess.Popen([*command, "--root", str(root)], stderr=subprocess.DEVNULL, env=one_thread())
    folder = root / "sae" / straight.name
    while len(checkpoints(folder / ".checkpoints")) < 2:
        assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list_runs(root, "sae")
    assert trained(root, *arguments) == folder
    assert {name: (folder / name).read_bytes() for name in wanted} == wanted


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def test_a_damaged_checkpoint_is_one_line_that_says_what_to_delete(harvested, capsys, tmp_path, monkeypatch):
    arguments = ["topk", *SMALL, "--n-steps", "40", "--k", "3", "--hook-points", HOOKS[1]]

    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    monkeypatch.setattr("app.training.checkpoint.save", stop)
    with pytest.raises(Stopped):
        main(["train", *arguments, "--checkpoint-every", "20", "--root", str(harvested)])
    monkeypatch.undo()
    (folder,) = {path.parent.parent for path in harvested.glob("sae/*/.checkpoints/step-00000040")}
    (folder / ".checkpoints/step-00000040/state.safetensors").write_bytes(b"half")
    assert "sha256 differs" in refused(capsys, harvested, *arguments)
    shutil.rmtree(folder / ".checkpoints/step-00000040")
    assert trained(harvested, *arguments).parent == folder.parent


def test_divergence_names_the_step_the_cause_and_the_last_good_checkpoint(harvested, capsys, monkeypatch):
    """A checkpoint is written once the next step's loss has shown it to be good."""
    wild = {"from": 20}
    monkeypatch.setattr("sae.train.lr_factor", lambda step, *_: 1e33 if step >= wild["from"] else 1.0)
    arguments = ("relu", *SMALL, "--hook-points", HOOKS[1], "--checkpoint-every", "1", "--lr", "2e-3")
    line = refused(capsys, harvested, *arguments)
    assert "diverged at step 22: loss=" in line
    assert line.endswith("step-00000020")
    wild["from"] = 99
    trained(harvested, *arguments)


def test_numbers_in_the_log_are_of_their_steps_whatever_the_penalty(harvested):
    arguments = ("jumprelu", *SMALL, "--sparsity", "step", "--target-l0", "5", "--hook-points", HOOKS[1])
    folder = trained(harvested, *arguments)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("topk", "--hook-points", *HOOKS), "2 hook points, but this variant reads 1"),
        (("transcoder", "--hook-points", HOOKS[0]), "1 hook points, but a transcoder has 2"),
        (("crosscoder", "--hook-points", HOOKS[0]), "a crosscoder has several"),
        (("topk",), "has 2 hook points: name one"),
        (("topk", "--hook-points", "blocks.9.hook_resid_post"), "has no 'blocks.9.hook_resid_post'"),
        (("topk", "--hook-points", HOOKS[0], "--k", "65"), "k=65 exceeds d_sae=64"),
        (("topk", "--hook-points", HOOKS[0], "--log-to", "nowhere"), "choose of tensorboard, wandb"),
        (("topk", "--hook-points", HOOKS[0], "--optimiser", "sgd"), "optimiser='sgd' is not known"),
        (("topk", "--hook-points", HOOKS[0], "--checkpoint-every", "-1"), "checkpoint_every=-1"),
    ],
    ids=lambda value: value[-24:] if isinstance(value, str) else "",
)
def test_what_cannot_be_trained_is_one_line(harvested, capsys, arguments, words):
    assert words in refused(capsys, harvested, arguments[0], *SMALL, *arguments[1:])


def test_tensorboard_gets_the_numbers_of_logged_steps(harvested):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained(harvested, "topk", *SMALL, "--k", "5", "--hook-points", HOOKS[1], "--log-to", "tensorboard")
    trained(harvested, "topk", *SMALL, "--k", "8", "--hook-points", HOOKS[1], "--log-to", "tensorboard")
    events = sorted(harvested.glob("tensorboard/*/events*"))
    assert len({path.parent for path in events}) == 2, "runs of other settings are runs of their own"
    for path in events:
        found = EventAccumulator(str(path.parent)).Reload()
        assert [event.step for event in found.Scalars("fvu")] == [10, 20, 30]


def test_a_logger_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert set(LOGGERS) == {"tensorboard", "wandb"}
    with pytest.raises(UsageError, match=r"pip install 'monosem\[wandb\]'"):
        open_loggers(("wandb",), tmp_path, "name", {})
