"""Seconds from a prompt of 200 tokens to all its figures in the Prompt lab, over a forward pass of SmolLM2, on the CPU.

Run from anywhere: `python bench/dashboard_prompt.py [--out RUNS]`; a few minutes, on a quiet machine. The first is
asked of a worker process as a page asks it, and ends when the page has the result: tokens, every latent that fires
with its own quantile, and each token's reconstruction error and loss. The second is the model's next-token logits on
the same tokens, in this process. Where losses are wanted a pass to the logits is the least that can be done.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from app.generator import Worker
from app.inspection import Inspection
from autointerp.subject import Subject
from bench.harness import Figure, main, paired, write
from bench.smollm2_runs import smollm2_runs
from store.run import find_run

NAME = "dashboard_prompt"
N_TOKENS, REPEATS = 200, 9
MOST_OVER = 1.5
"""Forward passes that it may take, and 0.3 seconds beside that."""
STORY = (
    "The harbour was quiet that morning, and nobody spoke of the storm. By noon the boats were back, and so were we. "
)
SECONDS = 300.0


def measure() -> bool:
    """Pairs of a whole answer and a bare forward pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the demo's runs; by default they are made and thrown away")
    args = parser.parse_args()
    with smollm2_runs(args.out) as root:
        index = find_run(root, "latest", "index")
        subject = Subject.open(index, root)
        text = subject.cut(STORY * 20, N_TOKENS)
        ids = torch.tensor([subject.ids(text)])
        worker = Worker(root, index.id)

        def inspected() -> None:
            _check(worker.inspect(text).result(SECONDS), ids.shape[1])

        def forward() -> None:
            with torch.inference_mode():
                subject.lm.logits(ids)

        try:
            pair = paired(inspected, forward, REPEATS)
        finally:
            worker.close()
    over = [max(0.0, a - MOST_OVER * b) for a, b in zip(pair.a, pair.b, strict=True)]
    figures = [
        Figure("what a 200-token prompt takes beyond 1.5 forward passes", float(np.median(over)), "s", "<= 0.3"),
        Figure("prompt to all its figures, over one forward pass", pair.ratio, "x"),
        Figure("prompt to all its figures", pair.median_a, "s"),
        Figure("forward pass", pair.median_b, "s"),
    ]
    return write(
        NAME, figures, n_tokens=ids.shape[1], model="SmolLM2-135M-Instruct", d_sae=subject.sae.cfg.d_sae, pair=pair
    )


def _check(found: Inspection, n_tokens: int) -> None:
    """Nothing is left out of what is timed."""
    assert len(found.tokens) == n_tokens
    assert np.isfinite(found.loss[1:]).all()
    assert np.isfinite(found.error).all()
    assert len(found.quantile) == len(found.latent) > 0


if __name__ == "__main__":
    main(measure)
