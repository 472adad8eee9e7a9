"""Trainings and dictionaries of the tiny model, made by the commands that a person would run."""

from pathlib import Path

import pytest

from app.cli import main
from store.run import list_runs

HOOK = "blocks.0.hook_resid_post"
TINY = f"harvest --model tiny --corpus stories --hook-points {HOOK} --n-ctx 64"
SMALL = f"--batch-size 128 --init-rows 256 --n-steps 40 --hook-points {HOOK}"


class Killed(Exception):
    """In place of SIGKILL: nothing after it is written."""


def run_all(root: Path, *commands: str) -> None:
    """Each command, which must succeed."""
    for command in commands:
        assert main([*command.split(), "--root", str(root)]) == 0, command


def build_trained(root: Path) -> None:
    """Two finished trainings and, newest, a killed one."""
    run_all(root, f"{TINY} --n-tokens 3000", *(f"train topk {SMALL} --d-sae 64 --k {k}" for k in (3, 5)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.training.heldout", _killed)
        with pytest.raises(Killed):
            run_all(root, f"train relu {SMALL} --d-sae 64 --checkpoint-every 20")


def _killed(*_: object) -> None:
    raise Killed


def build_compared(root: Path) -> None:
    """Two sparsities from one start, evaluated, indexed and matched, the first one explained; and a wider one that is
    only trained, two of whose steps were kept."""
    run_all(
        root,
        f"{TINY} --n-tokens 16000",
        f"train topk {SMALL} --d-sae 48 --k 4",
        "index --sae latest",
        "explain --explainer tokens",
        f"train topk {SMALL} --d-sae 48 --k 6 --order-seed 1",
        "index --sae latest",
        "match",
    )
    for run in list_runs(root, "sae"):
        run_all(root, f"evaluate {run.id} --only reconstruction loss --loss.n-sequences 6")
    run_all(root, f"train topk {SMALL} --k 4 --d-sae 64 --keep-every 20")
