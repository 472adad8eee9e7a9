"""What all worker scripts do: read the job, answer requests in lines, measure held-out rows by one formula."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
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
