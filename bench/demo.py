"""The demo as a newcomer meets it: how long, how much memory, how good.

Run from the repository root: `python bench/demo.py [--out DIR]`. With a warm asset cache; the runs start empty.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.evaluation.evaluated import evaluations_of
from app.evaluation.loss import CLEAN
from app.evaluation.reconstruction import ALL_BUT_FIRST
from bench.harness import WAIT_POLICY, Figure, main, write
from bench.render import DETAIL
from store.figures import find
from store.run import find_run, list_runs

STAGES = {"activations": "harvest", "sae": "train", "evaluation": "evaluate", "index": "index", "scores": "score"}


def measure() -> bool:
    """Run the demo in an empty folder, and again, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="keep the runs here; by default they are thrown away")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch) / "runs"
        shutil.rmtree(out, ignore_errors=True)
        return write("demo", figures(out), recipe="smollm2")


def figures(out: Path) -> list[Figure]:
    """Run the demo twice; what the first cost and found, and how soon the second was done."""
    first_s = run_demo(out)
    # Linux reports the largest resident set of any child in KiB.
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    second_s = run_demo(out)
    stages = [
        Figure(f"{DETAIL}{stage}", sum(run.manifest["seconds"] for run in list_runs(out, kind)), "s")
        for kind, stage in STAGES.items()
    ]
    return [
        *quality(out),
        Figure("demo, warm cache", first_s, "s", "<= 720"),
        Figure("demo, everything finished", second_s, "s", "<= 30"),
        Figure("peak memory", peak_gb, "GB", "<= 6"),
        *stages,
    ]


def quality(out: Path) -> list[Figure]:
    """The held-out figures of the newest runs."""
    evaluated = evaluations_of(out, find_run(out, "latest", "sae"))[-1]
    rows, losses = (evaluated.measured(part).figures for part in ("reconstruction", "loss"))
    scores = find_run(out, "latest", "scores").results
    recovered = {"metric": "loss_recovered", "setting": "against mean ablation"}
    return [
        _measured(
            "held-out FVU, all but first positions", rows, "", "<= 0.13", metric="fvu", token_class=ALL_BUT_FIRST
        ),
        _measured("held-out FVU, normal tokens", rows, metric="fvu", token_class="normal"),
        _measured("held-out FVU, sinks after the first position", rows, metric="fvu", token_class="sink"),
        _measured("L0", rows, "latents", metric="l0", token_class=ALL_BUT_FIRST),
        _measured("dead latents", rows, "of 4608", "<= 0", metric="n_dead"),
        _measured("cross-entropy, clean model", losses, metric="cross_entropy", arm=CLEAN),
        _measured("cross-entropy, reconstruction spliced in", losses, metric="cross_entropy"),
        _measured("cross-entropy, mean-ablated", losses, metric="cross_entropy", arm="mean ablation"),
        _measured("loss recovered against mean ablation", losses, **recovered),
        Figure("embedding score, mean AUROC", scores["explanation"]["mean"], ""),
        Figure("the same for shuffled explanations", scores["shuffled"]["mean"], ""),
    ]


def _measured(name: str, figures: Sequence[Any], unit: str = "", reach: str | None = None, **where: str) -> Figure:
    found = find(figures, **where)
    assert found is not None, name
    assert found.value is not None, name
    return Figure(name, found.value, unit, reach)


def run_demo(out: Path) -> float:
    """Wall seconds of one demo in a process of its own."""
    started = time.perf_counter()
    command = [str(Path(sys.executable).with_name("monosem")), "demo", "--no-serve", "--out", str(out)]
    # As a newcomer's shell has it.
    environment = {key: value for key, value in os.environ.items() if key != WAIT_POLICY}
    subprocess.run(command, check=True, env=environment)
    return time.perf_counter() - started


if __name__ == "__main__":
    main(measure)
