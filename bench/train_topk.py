"""What a TopK training step costs beyond what it cannot do without: the encoder product and the top-k.

Run from the repository root: `python bench/train_topk.py [--wide] [--repeats 7]`. Times are taken in the
order step, floor, step, floor, ..., so that a slow minute slows both.
"""

import argparse
import os
from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor

from bench.harness import MIN_REPEATS, Figure, Paired, main, paired, write
from sae import TopK, TopKConfig
from sae.train import TrainConfig, train

D_IN, K = 576, 32
SIZES: dict[str, tuple[int, int]] = {"4096x4608": (4096, 4608), "2048x16384": (2048, 16384)}
"""Batch rows and d_sae by name."""
WARMUP = 2
"""The first step initialises, the second meets warm allocators."""
REACH = "<= 1.4"
"""Step over floor that the sparse path is meant to stay within."""


def measure() -> bool:
    """Every size asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wide", action="store_true", help="also 2048 rows x 16384 latents")
    parser.add_argument("--repeats", type=int, default=7, help=f"pairs of timings, at least {MIN_REPEATS}")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pairs = {name: step_and_floor(name, args.repeats) for name in list(SIZES)[: 2 if args.wide else 1]}
    found = [figure for name, pair in pairs.items() for figure in figures(name, pair)]
    return write("train_topk", found, n_threads=args.threads, **{f"step / floor, {k}": v for k, v in pairs.items()})


def step_and_floor(name: str, n_repeats: int) -> Paired:
    """Seconds of a whole step, and of what no step avoids."""
    batch, d_sae = SIZES[name]
    x = torch.randn(batch, D_IN, generator=torch.Generator().manual_seed(0))
    sae = TopK(TopKConfig(d_in=D_IN, d_sae=d_sae, k=K))
    # a whole run of silence before AuxK starts: this is the step of an SAE without dead latents
    cfg = TrainConfig(n_steps=n_repeats + WARMUP, init_rows=batch, dead_after_fraction=1.0)
    steps = train(sae, repeat(x), cfg)
    return paired(lambda: advance(steps), lambda: floor(sae, x), n_repeats, WARMUP)


def figures(name: str, pair: Paired) -> list[Figure]:
    """What the README and the design documents quote."""
    return [
        Figure(f"topk step / floor, {name}", pair.ratio, "ratio", REACH),
        Figure(f"topk step, {name}", pair.median_a, "s"),
        Figure(f"encoder product + topk, {name}", pair.median_b, "s"),
        Figure(f"topk training, {name}", SIZES[name][0] / pair.median_a, "rows/s"),
    ]


@torch.no_grad()
def floor(sae: TopK, x: Tensor) -> None:
    """The part of a step that no TopK trainer avoids."""
    torch.addmm(sae.b_enc, x, sae.W_enc).topk(K, dim=1, sorted=False)


def advance(steps: Iterator) -> None:
    next(steps)


if __name__ == "__main__":
    main(measure)
