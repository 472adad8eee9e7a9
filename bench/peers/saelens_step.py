"""SAELens' training step as a worker: one line in, one step timed, one line out.

Runs in bench/peers/.venv, which has none of the project's code. The step is `SAETrainer.step`, which `fit` calls for
every batch: training forward pass with its losses, firing statistics, backward, gradient clip 1.0, `torch.optim.Adam`
as the trainer constructs it, schedulers of learning rate and coefficients. Left out is what `fit` does around it:
fetching the batch, the progress bar, logging.
"""

import time
from typing import Any

import torch
from answers import read_job, requests, say
from sae_lens.training.sae_trainer import SAETrainer
from saelens_sae import build, load_start, trainer
from safetensors.torch import load_file
from torch import Tensor


def main() -> None:
    """Answer every request with the seconds of one step, its FVU and its L0."""
    job = read_job()
    start = load_file(job["start"])
    x = start.pop("x")
    sae = build(job["variant"], x.shape[1], len(start["W_dec"]), job["settings"])
    load_start(sae, start)
    own = trainer(sae, iter(()), job["n_steps"], len(x), lr=job["lr"])
    total = (x - x.mean(dim=0)).square().sum().item()
    say({"ready": True})
    for _ in requests():
        say(step(own, x, total))


def step(own: SAETrainer, x: Tensor, total: float) -> dict[str, Any]:
    """One step; its reconstruction loss, a sum over d_in and a mean over rows, as FVU."""
    started = time.perf_counter()
    out = own.step(x)
    seconds = time.perf_counter() - started
    own.n_training_steps += 1
    with torch.no_grad():
        l0 = (out.feature_acts > 0).sum().item() / len(x)
    return {"seconds": seconds, "fvu": out.losses["mse_loss"].item() * len(x) / total, "l0": l0}


if __name__ == "__main__":
    main()
