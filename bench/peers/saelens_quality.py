"""SAELens' training as a worker: one line in, one SAE trained and measured on held-out rows, one line out.

Training is `SAETrainer.fit`. What is measured is the inference SAE that SAELens saves and loads again: a BatchTopK with
its threshold, and whatever it normalised by folded in.
"""

import tempfile
import time
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from answers import heldout, read_job, requests, say
from sae_lens import SAE
from saelens_sae import build, trainer
from torch import Tensor

NORM_BATCHES = 8
"""Batches that give the norm for normalising, where that is asked for; they are trained on as well."""


def main() -> None:
    """Answer every request with what the trained SAE is worth."""
    job = read_job()
    test = torch.from_numpy(np.load(job["heldout"]))
    say({"ready": True})
    for request in requests():
        say(trained(request, test))


def trained(request: dict[str, Any], test: Tensor) -> dict[str, Any]:
    """Train on consecutive batches of the rows, and measure."""
    torch.manual_seed(request["seed"])
    rows = np.load(request["rows"], mmap_mode="r")
    sae = build(request["variant"], rows.shape[1], request["d_sae"], request["settings"])
    batches = batched(rows, request["batch"])
    if sae.cfg.normalize_activations != "none":
        batches = chain(islice(batched(rows, request["batch"]), NORM_BATCHES), batches)
    n_steps = len(rows) // request["batch"]
    own = trainer(sae, batches, n_steps, request["batch"], n_batches_for_norm_estimate=NORM_BATCHES, **request["train"])
    started = time.perf_counter()
    own.fit()
    return {"seconds": time.perf_counter() - started, **measured(own.sae, test)}


def batched(rows: np.ndarray, batch: int) -> Iterator[Tensor]:
    """Consecutive batches, copied out of the file."""
    return (torch.from_numpy(rows[i : i + batch].copy()) for i in range(0, len(rows), batch))


def measured(sae: Any, test: Tensor) -> dict[str, float]:
    """The inference SAE on held-out rows."""
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        inference = SAE.load_from_disk(folder)

    def reconstruct(x: Tensor) -> tuple[Tensor, Tensor]:
        latents = inference.encode(x)
        return inference.decode(latents), latents

    return heldout(test, reconstruct)


if __name__ == "__main__":
    main()
