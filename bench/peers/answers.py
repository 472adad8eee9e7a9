"""What all worker scripts do: read the job, answer requests in lines, measure held-out rows by one formula."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

MARK = "RESULT "
"""Before every line that is meant for the benchmark: libraries print to the same stream."""
CHUNK_ROWS = 4096


def read_job() -> dict[str, Any]:
    """The script's argument; torch gets the threads it names."""
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["n_threads"])
    return job


def requests() -> Iterator[dict[str, Any]]:
    """Every request as it comes."""
    return map(json.loads, sys.stdin)


def say(message: dict[str, Any]) -> None:
    """One line for the benchmark."""
    print(MARK + json.dumps(message), flush=True)


def answer_rows(
    opened: Callable[[dict[str, Any], Tensor], Tensor], made: Callable[[dict[str, Any], Tensor], Tensor]
) -> None:
    """Save what the library makes of the test rows, with a checkpoint that it opens or that it makes; say how long."""
    read_job()
    say({"ready": True})
    for request in requests():
        started = time.perf_counter()
        test = torch.from_numpy(np.load(request["test"]))
        x_hat = opened(request, test) if "load" in request else made(request, test)
        save_file({"x": test, "x_hat": x_hat.contiguous()}, request["answers"])
        say({"seconds": time.perf_counter() - started})


@torch.no_grad()
def heldout(x: Tensor, reconstruct: Callable[[Tensor], tuple[Tensor, Tensor]]) -> dict[str, float]:
    """FVU = Σ‖x − x̂‖² / Σ‖x − mean(x)‖² with one mean, in float64; mean L0; share of latents never active in the rows.

    `reconstruct` takes rows to their reconstructions and their latents, `[rows, d_sae]`.
    """
    mean = x.double().mean(dim=0)
    residual, total, active = 0.0, 0.0, torch.zeros(())
    for rows in x.split(CHUNK_ROWS):
        x_hat, latents = reconstruct(rows)
        residual += (rows.double() - x_hat.double()).square().sum().item()
        total += (rows.double() - mean).square().sum().item()
        active = active + (latents > 0).sum(dim=0)
    return {
        "fvu": residual / total,
        "l0": active.sum().item() / len(x),
        "dead": (active == 0).double().mean().item(),
    }
