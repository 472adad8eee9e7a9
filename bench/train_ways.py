"""Ways that were tried to make a TopK step cheaper, each in a process of its own: step and floor, taken in turn.

Run from the repository root: `python bench/train_ways.py`. *As it is* is what the library does; every other way changes
one thing. What makes the floor (encoder product and `torch.topk`) cheaper as well shows in the seconds and not in the
ratio.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import repeat

import torch

from bench.harness import Figure, main, paired, write
from sae import TopK, TopKConfig, encoder, ksparse, largest
from sae.train import TrainConfig, train

D_IN, K = 576, 32
SIZES = {"4096x4608": (4096, 4608), "2048x16384": (2048, 16384)}
"""Batch rows and d_sae by name."""
REPEATS, WARMUP = 9, 2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers for when freed memory is given back, and from what size it is never kept."""


def by_torch() -> None:
    """The largest of each row by `torch.topk`."""
    ksparse.row_largest = lambda pre_acts, k: pre_acts.topk(k, dim=1, sorted=False).indices


def by_numpy() -> None:
    """By numpy's partition above the k-th largest maximum of groups."""
    largest.FEW = 0


def small_blocks() -> None:
    """Pre-activations in blocks of a quarter of the size."""
    encoder.BLOCK_ENTRIES = 2_000_000


def one_block() -> None:
    """All pre-activations at once."""
    encoder.BLOCK_ENTRIES = 10**9


def kept_memory() -> None:
    """The allocator keeps what is freed, so that no page is cleared anew."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 2**30)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


WAYS: dict[str, Callable[[], None]] = {
    "as it is": lambda: None,
    "selection by torch.topk": by_torch,
    "selection by numpy": by_numpy,
    "blocks of 2 M entries": small_blocks,
    "one block": one_block,
    "allocator keeps memory": kept_memory,
}


def measure() -> bool:
    """Every way at every size."""
    found: list[Figure] = []
    for size in SIZES:
        for way in WAYS:
            seconds, ratio = in_process(way, size)
            found += [
                Figure(f"{way}: step / floor, {size}", ratio, "ratio"),
                Figure(f"{way}: step, {size}", seconds, "s"),
            ]
    return write("train_ways", found, d_in=D_IN, k=K, repeats=REPEATS)


def in_process(way: str, size: str) -> tuple[float, float]:
    """Median seconds of a step, and its median ratio to the floor."""
    command = [sys.executable, "-c", f"from bench.train_ways import timed; timed({way!r}, {size!r})"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, ratio = json.loads(result.stdout.splitlines()[-1])
    return seconds, ratio


def timed(way: str, size: str) -> None:
    """Print both."""
    torch.set_num_threads(2)
    WAYS[way]()
    batch, d_sae = SIZES[size]
    x = torch.randn(batch, D_IN, generator=torch.Generator().manual_seed(0))
    sae = TopK(TopKConfig(d_in=D_IN, d_sae=d_sae, k=K))
    cfg = TrainConfig(n_steps=REPEATS + WARMUP, init_rows=batch, dead_after_fraction=1.0)
    steps = train(sae, repeat(x), cfg)

    @torch.no_grad()
    def floor() -> None:
        torch.addmm(sae.b_enc, x, sae.W_enc).topk(K, dim=1, sorted=False)

    def step() -> None:
        next(steps)

    pair = paired(step, floor, REPEATS, WARMUP)
    print(json.dumps([pair.median_a, pair.ratio]))


if __name__ == "__main__":
    main(measure)
