"""sparsify's training as a worker: one line in, one SAE trained and measured on held-out rows, one line out."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answers import heldout, read_job, requests, say
from sparsify import SparseCoder
from sparsify_trainer import Batches, saved, trainer
from torch import Tensor


def main() -> None:
    """Answer every request with what the trained SAE is worth."""
    job = read_job()
    test = torch.from_numpy(np.load(job["heldout"]))
    say({"ready": True})
    for request in requests():
        say(trained(request, test))


def trained(request: dict[str, Any], test: Tensor) -> dict[str, Any]:
    """Train on consecutive batches of the rows, and measure what was saved."""
    rows = torch.from_numpy(np.load(request["rows"], mmap_mode="c"))
    batches = Batches(len(rows), request["batch"], len(rows) // request["batch"])
    with tempfile.TemporaryDirectory() as folder:
        settings = {"init_seeds": [request["seed"]], **request["train"]}
        own = trainer(rows, request["d_sae"], request["settings"]["k"], batches, Path(folder), **settings)
        started = time.perf_counter()
        own.fit()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, **measured(saved(own), test)}


def measured(sae: SparseCoder, test: Tensor) -> dict[str, float]:
    """The SAE on held-out rows."""

    def reconstruct(x: Tensor) -> tuple[Tensor, Tensor]:
        out = sae.encode(x)
        latents = x.new_zeros(len(x), sae.num_latents).scatter_(1, out.top_indices, out.top_acts)
        return sae.decode(out.top_acts, out.top_indices), latents

    return heldout(test, reconstruct)


if __name__ == "__main__":
    main()
