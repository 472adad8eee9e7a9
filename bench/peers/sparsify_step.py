"""sparsify's training step as a worker: one line in, one step timed, one line out.

Runs in bench/peers/.venv, which has none of the project's code. `Trainer.fit` runs all the time and is held up where it
asks for its next batch: a step is what it does between two batches, its whole loop body, bookkeeping and progress bar
included. The optimiser is `torch.optim.Adam` as the trainer constructs it; gradients are not clipped.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from answers import read_job, requests, say
from safetensors.torch import load_file
from sparsify import SparseCoder
from sparsify_trainer import Batches, coder, trainer
from torch import Tensor


class Clock:
    """Stands between two steps: answers for the one before, waits for a request, and starts the next."""

    def __init__(self, waiting: Iterator[Any]) -> None:
        self.waiting = waiting
        self.started: float | None = None
        self.found: dict[str, Tensor] = {}
        """What the step's forward pass had."""

    def __call__(self) -> None:
        if self.started is None:
            say({"ready": True})
        else:
            seconds = time.perf_counter() - self.started
            say({"seconds": seconds, **{name: value.item() for name, value in self.found.items()}})
        if next(self.waiting, None) is None:
            sys.exit()
        self.started = time.perf_counter()

    def see(self, _module: Any, _inputs: Any, out: Any) -> None:
        self.found = {"fvu": out.fvu.detach(), "l0": (out.latent_acts > 0).sum() / len(out.latent_acts)}


def main() -> None:
    """Let `fit` run, one step for every request."""
    job = read_job()
    start = load_file(job["start"])
    x = start["x"]
    clock = Clock(requests())
    # one step more than there will be requests: the last answer is given when the batch after it is asked for
    batches = Batches(len(x), len(x), job["n_steps"] + 1, clock)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"optimizer": "adam", "lr": job["lr"], "lr_warmup_steps": 0}
        own = trainer(x, len(start["W_dec"]), job["settings"]["k"], batches, Path(folder), **settings)
        load_start(coder(own), start)
        coder(own).register_forward_hook(clock.see)
        own.fit()


@torch.no_grad()
def load_start(sae: SparseCoder, start: dict[str, Tensor]) -> None:
    """Begin with these weights and biases; `fit` sets the decoder's bias to the first batch's mean, which it is."""
    sae.encoder.weight.copy_(start["W_enc"].t())
    sae.encoder.bias.copy_(start["b_enc"])
    sae.W_dec.copy_(start["W_dec"])
    sae.b_dec.copy_(start["b_dec"])


if __name__ == "__main__":
    main()
