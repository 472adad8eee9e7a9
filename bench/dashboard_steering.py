"""Seconds from asking the dashboard's worker to the first steered token, over the first of the same text unsteered.

Run from anywhere: `python bench/dashboard_steering.py [--out RUNS]`; about three minutes, on a quiet machine. Both ask
one worker that has loaded SmolLM2 before, as `serve` has after its first text, and wait as a page does, but for its
polling. Steered is asked for as the steering lab asks: both texts, the steered one's token first.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from app.generator import Worker
from app.steered import SIDES, Side
from app.workbench import Workbench
from autointerp.steer_config import SteerConfig
from bench.harness import Figure, Paired, main, paired, write
from bench.smollm2_runs import smollm2_runs

NAME = "dashboard_steering"
REPEATS = 15
N_TOKENS = 2
LOOK_SECONDS = 0.0005
"""Between two looks at what has come."""
PROMPT = "Once upon a time there was a carpenter who lived by the sea, and every morning he walked down to the harbour."
REACH = "<= 1.1"


def measure() -> bool:
    """Pairs of edits of several sizes with the untouched model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the demo's runs; by default they are made and thrown away")
    args = parser.parse_args()
    with smollm2_runs(args.out) as root:
        bench = Workbench.open(root)
        alive = bench.index.sql("SELECT latent FROM latents WHERE n_fired > 0 ORDER BY latent LIMIT 8")[
            "latent"
        ].tolist()
        one, many = tuple(alive[:1]), tuple(alive)
        edits = {
            "1 latent, clamp": SteerConfig(latents=one),
            "8 latents, clamp": SteerConfig(latents=many),
            "8 latents, clamp per token": SteerConfig(latents=many, when="token"),
        }
        worker = Worker(root, bench.run.id)
        try:
            pairs = {name: _paired(worker, edit) for name, edit in edits.items()}
        finally:
            worker.close()
    figures = [Figure(f"first token, {name}, over none", pair.ratio, "x", REACH) for name, pair in pairs.items()]
    figures += [Figure(f"seconds: first token, {name}", pair.median_a, "s") for name, pair in pairs.items()]
    return write(NAME, figures, model="SmolLM2-135M-Instruct", d_sae=bench.d_sae, prompt=PROMPT, **pairs)


def _paired(worker: Worker, edit: SteerConfig) -> Paired:
    return paired(_first(worker, edit, SIDES), _first(worker, edit, ("clean",)), REPEATS, warmup=2)


def _first(worker: Worker, edit: SteerConfig, sides: tuple[Side, ...]) -> Callable[[], float]:
    """Seconds to the first token of the first of `sides`."""

    def work() -> float:
        started = time.perf_counter()
        job = worker.steer(PROMPT, [edit], n_tokens=N_TOKENS, temperature=0.0, chat=False, sides=sides)
        while not job.n_tokens[sides[0]] and not job.done:
            time.sleep(LOOK_SECONDS)
        taken = time.perf_counter() - started
        # The worker has nothing left to do when the next is asked.
        job.result()
        return taken

    return work


if __name__ == "__main__":
    main(measure)
