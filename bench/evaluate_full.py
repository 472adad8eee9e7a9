"""A whole evaluation of a 4,608-latent dictionary of SmolLM2 over 200,000 tokens: how long, part by part.

Run from anywhere: `python bench/evaluate_full.py`. All parts but absorption, in their full settings, with the model
loaded and the labelled texts at hand: figures over rows are taken on all held-out rows, dead latents on all rows,
cross-entropy and KL divergence on 160 held-out sequences.
"""

import tempfile
from pathlib import Path

import torch

from activations.harvest import harvest
from activations.models import DEFAULT_MODEL
from app.evaluation.job import evaluate_dictionary, requests
from app.evaluation.parts import PARTS
from app.report.job import write_report
from bench.evaluate_core import D_SAE, HOOK_POINT, trained
from bench.harness import Figure, main, seconds, write
from bench.render import DETAIL
from bench.sides import N_THREADS, config

N_TOKENS = 200_000
LEFT_OUT = "absorption"
REACH_S = "<= 900"


def measure() -> bool:
    """Harvest and train, which are not timed; evaluate and report, which are."""
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        activations = harvest(config(DEFAULT_MODEL, (HOOK_POINT,), "english", N_TOKENS), root)
        sae = trained(activations, root, n_steps=700)
        asked = requests([name for name in PARTS if name != LEFT_OUT])
        evaluated = []
        evaluating = seconds(lambda: evaluated.append(evaluate_dictionary(asked, sae, activations, root)))
        reporting = seconds(lambda: write_report(evaluated, root) and None)
        (found,) = evaluated
        if found.failed:
            raise RuntimeError(f"not measured: {found.failed}")
        parts = [Figure(f"{DETAIL}{name}", run.manifest["seconds"], "s") for name, run in found.runs.items()]
    figures = [Figure("full evaluation", evaluating + reporting, "s", REACH_S), *parts]
    settings = {"model": DEFAULT_MODEL, "hook_point": HOOK_POINT, "d_sae": D_SAE, "left_out": LEFT_OUT}
    return write("evaluate_full", figures, **settings, n_tokens=activations.results["n_tokens"], n_threads=N_THREADS)


if __name__ == "__main__":
    main(measure)
