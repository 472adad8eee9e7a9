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
from pathlib import Path

from bench.harness import WAIT_POLICY, Figure, main, write
from bench.render import DETAIL
from store.run import find_run

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
        Figure(f"{DETAIL}{stage}", find_run(out, "latest", kind).manifest["seconds"], "s")
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
    found = find_run(out, "latest", "evaluation").results
    scores = find_run(out, "latest", "scores").results
    heldout = found["heldout"]
    return [
        Figure("held-out FVU, all but first positions", heldout["all_but_first"]["fvu"], "", "<= 0.13"),
        Figure("held-out FVU, normal tokens", heldout["normal"]["fvu"], ""),
        Figure("held-out FVU, sinks after the first position", heldout["sink"]["fvu"], ""),
        Figure("L0", heldout["all_but_first"]["l0"], "latents"),
        Figure("dead latents", found["n_dead"], "of 4608", "<= 0"),
        Figure("cross-entropy, clean model", found["loss_clean"], "nats"),
        Figure("cross-entropy, reconstruction spliced in", found["loss_spliced"], "nats"),
        Figure("cross-entropy, mean-ablated", found["loss_mean_ablated"], "nats"),
        Figure("loss recovered against mean ablation", found["loss_recovered"], ""),
        Figure("embedding score, mean AUROC", scores["explanation"]["mean"], ""),
        Figure("the same for shuffled explanations", scores["shuffled"]["mean"], ""),
    ]


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
