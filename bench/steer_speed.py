"""Seconds a token of SmolLM2 writing under an edit, over the same model writing without, with a cache, on the CPU.

Run from anywhere: `python bench/steer_speed.py [--out RUNS]`; some minutes, on a quiet machine. Strengths are
small, so that both write as many tokens; whatever number that is, times are per token.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from autointerp.steer_config import SteerConfig, intervention
from autointerp.subject import Subject
from bench.harness import Figure, Paired, main, paired, write
from bench.smollm2_runs import smollm2_runs
from store.run import find_run

NAME = "steer_speed"
N_TOKENS, REPEATS = 48, 9
PROMPT = "Once upon a time there was a carpenter who lived by the sea, and every morning"


def measure() -> bool:
    """Pairs of every kind of edit with the untouched model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the demo's runs; by default they are made and thrown away")
    args = parser.parse_args()
    with smollm2_runs(args.out) as root:
        subject = Subject.open(find_run(root, "latest", "index"), root)
    one, many = (tuple(subject.alive[:n].tolist()) for n in (1, 32))
    edits = {
        "1 latent, add": (SteerConfig(latents=one, op="add", strength=(0.01,)), "<= 1.1"),
        "1 latent, clamp": (SteerConfig(latents=one, strength=(0.01,)), "<= 1.1"),
        "32 latents, clamp": (SteerConfig(latents=many, strength=(0.01,)), "<= 1.2"),
        "32 latents, project_out": (SteerConfig(latents=many, op="project_out"), "<= 1.2"),
        "1 latent, clamp per token": (SteerConfig(latents=one, strength=(0.01,), when="token"), "<= 1.3"),
        "32 latents, clamp per input": (SteerConfig(latents=many, strength=(0.01,), when="input"), "<= 1.3"),
    }
    pairs = {name: _paired(subject, cfg) for name, (cfg, _) in edits.items()}
    figures = [Figure(f"{name}, over none", pairs[name].ratio, "x", reach) for name, (_, reach) in edits.items()]
    return write(NAME, figures, n_tokens=N_TOKENS, model="SmolLM2-135M-Instruct", d_sae=subject.sae.cfg.d_sae, **pairs)


def _paired(subject: Subject, cfg: SteerConfig) -> Paired:
    wanted = intervention([cfg], subject.sae, subject.units, subject.sink_norm)

    def steered() -> float:
        with subject.edited(wanted.begin()):
            return _per_token(subject)

    return paired(steered, _clean(subject), REPEATS)


def _clean(subject: Subject) -> Callable[[], float]:
    return lambda: _per_token(subject)


def _per_token(subject: Subject) -> float:
    ids = subject.ids(PROMPT)
    started = time.perf_counter()
    written = subject.lm.generate(ids, N_TOKENS, 0.0, 0)
    return (time.perf_counter() - started) / len(written)


if __name__ == "__main__":
    main(measure)
