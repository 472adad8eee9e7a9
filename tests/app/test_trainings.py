"""What is told of trainings from their folders: running, killed or finished, how far, how fast, and how to go on."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from app.cli import main
from app.train_command import train_command
from app.trainings import Trained, checkpoint_steps, headway, kept_folder, kept_steps, trainings
from sae import checkpoint
from store.run import Run, list_runs, locked, unfinished_runs
from store.under_way import at_work

torch.set_num_threads(1)

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
SMALL = ("--d-sae", "64", "--n-steps", "40", "--batch-size", "128", "--init-rows", "256")


@pytest.fixture(scope="module")
def harvested(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("trainings") / "runs"
    tiny = ("--model", "tiny", "--corpus", "stories", "--n-tokens", "3000", "--n-ctx", "64")
    assert main(["harvest", *tiny, "--hook-points", *HOOKS, "--root", str(root)]) == 0
    return root


class Killed(Exception):
    """In place of SIGKILL: nothing after it is written."""


def interrupted(root: Path, monkeypatch, *arguments: str) -> Run:
    """A training that ended between its last step and its end."""

    def stop(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("app.training.heldout", stop)
        with pytest.raises(Killed):
            main(["train", *arguments, "--checkpoint-every", "20", "--root", str(root)])
    (run,) = unfinished_runs(root, "sae")
    return run


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


@pytest.mark.parametrize(
    "arguments",
    [
        ("topk", *SMALL, "--k", "3", "--hook-points", HOOKS[1]),
        ("matryoshka", *SMALL, "--hook-points", HOOKS[1], "--classes", "normal", "sink", "--resample-at", "0.5"),
        ("jumprelu", *SMALL, "--hook-points", HOOKS[0], "--order-seed", "3", "--grad-clip", "None"),
        ("crosscoder", *SMALL, "--hook-points", *HOOKS, "--betas", "0.8", "0.9"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_command_that_is_told_goes_on_with_a_killed_training(harvested, monkeypatch, arguments):
    begun = interrupted(harvested, monkeypatch, *arguments)
    command = train_command(begun)
    assert command is not None
    assert main(shlex.split(command)[1:]) == 0
    assert not unfinished_runs(harvested, "sae")
    assert list_runs(harvested, "sae")[-1].id == begun.id


def test_a_killed_training_is_told_from_a_running_one(harvested, monkeypatch):
    run = interrupted(harvested, monkeypatch, "topk", *SMALL, "--k", "5", "--hook-points", HOOKS[0])
    (found,) = [one for one in trainings(harvested) if one.run.id == run.id]
    assert (found.state, checkpoint_steps(found)) == ("interrupted", [20, 40])
    with locked(run.folder):
        assert at_work(run)
        assert trainings(harvested)[-1].running
    run.manifest["process"] = "1 on another-machine"
    assert at_work(run) is None
    shutil.rmtree(run.folder)


def test_steps_and_their_times_stand_beside_the_log_and_go_on_after_a_kill(harvested, monkeypatch):
    arguments = ("topk", *SMALL, "--k", "6", "--hook-points", HOOKS[1])
    run = interrupted(harvested, monkeypatch, *arguments)
    with (run.folder / "progress.jsonl").open("a") as file:
        file.write('{"time": 1.5, "st')
    shutil.rmtree(run.folder / ".checkpoints/step-00000040")
    assert main(["train", *arguments, "--root", str(harvested)]) == 0
    assert [line["step"] for line in lines(run.folder / "log.jsonl")] == [10, 20, 30, 40]
    beats = [line for line in (run.folder / "progress.jsonl").read_text().splitlines() if line.endswith("}")]
    told = [(beat["step"], beat.get("begun", False)) for beat in map(json.loads, beats)]
    first = [(10, False), (20, False), (30, False), (40, False)]
    assert told == [(0, True), *first, (20, True), (30, False), (40, False)]
    (found,) = [one for one in trainings(harvested) if one.run.id == run.id]
    assert found.state == "finished"
    assert "progress.jsonl" not in found.run.manifest["files"]


def training_of(n_steps: int) -> Trained:
    return Trained(Run(Path("sae/x"), {"id": "x", "config": {"train": {"n_steps": n_steps}}}), "running")


def test_the_rate_is_of_this_process_and_of_the_last_minute():
    beats = [
        {"time": 0.0, "step": 0, "begun": True},
        {"time": 10.0, "step": 50},
        {"time": 1000.0, "step": 40, "begun": True},
        {"time": 1030.0, "step": 50},
        {"time": 1080.0, "step": 60},
        {"time": 1100.0, "step": 70},
        {"time": 1120.0, "step": 90},
    ]
    found = headway(training_of(100), [{"step": 90}], beats)
    assert (found.step, found.share, found.last_at) == (90, 0.9, 1120.0)
    assert found.steps_per_s == pytest.approx(30 / 40)
    assert found.eta_s == pytest.approx(10 / 0.75)


def test_a_training_that_has_only_begun_has_no_rate():
    found = headway(training_of(100), [], [{"time": 5.0, "step": 0, "begun": True}])
    assert (found.step, found.steps_per_s, found.eta_s, found.last_at) == (0, None, None, None)


def test_dictionaries_of_steps_are_kept_as_they_were_a_kill_in_between_or_not(harvested, monkeypatch):
    arguments = ("topk", *SMALL, "--k", "7", "--hook-points", HOOKS[1], "--keep-every", "15")
    run = interrupted(harvested, monkeypatch, *arguments)
    kept = {step: (kept_folder(run.folder, step) / "sae.safetensors").read_bytes() for step in kept_steps(run)}
    assert list(kept) == [15, 30]
    shutil.rmtree(run.folder / ".checkpoints/step-00000040")
    shutil.rmtree(run.folder / "steps/step-00000030")
    assert "--keep-every 15" in (train_command(run) or "")
    assert main(["train", *arguments, "--root", str(harvested)]) == 0
    finished = list_runs(harvested, "sae")[-1]
    assert {step: (kept_folder(finished.folder, step) / "sae.safetensors").read_bytes() for step in kept} == kept
    assert not torch.equal(*(checkpoint.load(kept_folder(finished.folder, step)).W_dec for step in kept))
    assert "steps/step-00000015/sae.safetensors" in finished.manifest["files"]
    assert not finished.broken_files()
