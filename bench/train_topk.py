"""What a TopK training step costs beyond what it cannot do without: the encoder product and the top-k.

Run from the repository root: `python bench/train_topk.py [--wide] [--repeats 7]`. Times are taken in the order
floor, step, floor, step, ... and compared by their medians, so that a slow minute slows both.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from statistics import median

import torch
from report import Figure, write
from torch import Tensor

from sae import TopK, TopKConfig
from sae.train import TrainConfig, train

D_IN, K = 576, 32
SIZES: dict[str, tuple[int, int]] = {"4096x4608": (4096, 4608), "2048x16384": (2048, 16384)}
"""Batch rows and d_sae by name."""
REACH = "<= 1.4"
"""Step over floor that the sparse path is meant to stay within."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wide", action="store_true", help="also 2048 rows x 16384 latents")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of timings, at least 5")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = list(SIZES) if args.wide else list(SIZES)[:1]
    figures = [figure for name in names for figure in measure(name, max(5, args.repeats))]
    sys.exit(not write("train_topk", figures, n_threads=args.threads, repeats=max(5, args.repeats)))


def measure(name: str, n_repeats: int) -> list[Figure]:
    """The medians of one size, and their ratio."""
    batch, d_sae = SIZES[name]
    x = torch.randn(batch, D_IN, generator=torch.Generator().manual_seed(0))
    sae = TopK(TopKConfig(d_in=D_IN, d_sae=d_sae, k=K))
    # a whole run of silence before AuxK starts: this is the step of an SAE without dead latents
    cfg = TrainConfig(n_steps=n_repeats + 2, init_rows=batch, dead_after_fraction=1.0)
    steps = train(sae, repeat(x), cfg)
    for _ in range(2):  # the first step initialises, the second meets warm allocators
        next(steps)
        floor(sae, x)
    pairs = [(seconds(lambda: floor(sae, x)), seconds(lambda: advance(steps))) for _ in range(n_repeats)]
    floor_s, step_s = (median(times) for times in zip(*pairs, strict=True))
    return [
        Figure(f"topk step / floor, {name}", step_s / floor_s, "ratio", REACH),
        Figure(f"topk step, {name}", step_s, "s"),
        Figure(f"encoder product + topk, {name}", floor_s, "s"),
        Figure(f"topk training, {name}", batch / step_s, "rows/s"),
    ]


@torch.no_grad()
def floor(sae: TopK, x: Tensor) -> None:
    """The part of a step that no TopK trainer avoids."""
    torch.addmm(sae.b_enc, x, sae.W_enc).topk(K, dim=1, sorted=False)


def advance(steps: Iterator) -> None:
    next(steps)


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
