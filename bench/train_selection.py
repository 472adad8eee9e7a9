"""Whether each row's k largest pre-activations can be found for less than the whole encoder product and its top-k.

Run from anywhere: `python bench/train_selection.py [--steps 200]`. First what selection itself costs: `sae.largest`
against torch. Then ways that screen the latents with something cheaper than the product and compute exactly only those
that are left. Where a screen s_ij of the pre-activations is wrong by m_ij at most, latent j can be among row i's k
largest only if s_ij + m_ij reaches the k-th largest of s_i - m_i: those are the survivors, and the k largest are
certainly among them. Every screen is helped: bases, clusters and the last selection among the survivors are free. Data:
the demo's activations and isotropic noise; SAEs at their initialisation and trained.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from activations.harvest import HarvestConfig, harvest
from activations.reader import Activations
from activations.text import TextConfig
from bench.harness import Figure, Paired, main, paired, write
from sae import TopK, TopKConfig
from sae.largest import above, batch_largest, row_largest
from sae.sparse import Pattern
from sae.train import TrainConfig, train

SIZES = ((4096, 4608), (2048, 16384))
"""Batch rows and d_sae."""
KS = (32, 128)
"""The second is the 4k of multi-TopK."""
D_IN, D_SAE, K, BATCH = 576, 4608, 32, 2048
N_TOKENS = 49_152
"""Of the demo's text: some 22 batches of training rows."""
SIX_SIGMA = 6 / D_IN**0.5
"""Of |a||b|, against which a rounding error a is certified: six standard deviations of a·b were its signs random."""
BREAK_EVEN = 1 / 8
"""Share of survivors from which the whole product is cheaper than theirs, gathered one by one."""
N_CLUSTERS, N_LLOYD = 512, 5
INT8 = 127.0
BEFORE, JUDGED = "an epoch before", ("initialised", "trained")
BLOCK = 256
"""Rows screened at a time, so that the passes over a screen do not wait for memory."""


@dataclass(frozen=True)
class Problem:
    """Rows, an encoder, and the answer."""

    x: Tensor
    W: Tensor
    """[d_in, d_sae], its transpose contiguous."""
    bias: Tensor
    basis: Tensor
    """Principal directions of the rows, most important first."""
    centres: Tensor
    """[d_in, n_clusters] of the encoder's columns."""
    cluster: Tensor
    """Of each column."""
    top: Tensor
    """The true k largest."""
    kth: Tensor
    """The smallest of them, [batch, 1]."""


class Screen(NamedTuple):
    """A guess at pre-activations, and what bounds its error: x_error @ w_error."""

    guess: Tensor
    x_error: Tensor
    w_error: Tensor


Way = Callable[[Problem], Callable[[Tensor], Screen]]
"""Prepares an encoder as every step has to, and then screens rows."""


@dataclass(frozen=True)
class Outcome:
    """What a way of screening came to."""

    survivors: float
    """Mean per row, of d_sae."""
    survivors_if_known: float
    """The same, were the k-th largest value known beforehand: the best that this bound could do."""
    recall: float
    """Of the true k largest among the survivors."""
    recall_of_guess: dict[int, float]
    """Of the true k largest among the guess's m largest, with nothing certified, by m."""
    timing: Paired
    """Screen, survivors and their exact values / whole product and torch.topk."""
    timing_of_guess: Paired
    """Screen, the guess's 2k largest and their exact values / the same."""


# --- Ways ---


def low_rank(n_directions: int) -> Way:
    """Rows and encoder in the rows' first principal directions; Cauchy-Schwarz for the rest. The basis is free."""

    def prepare(p: Problem) -> Callable[[Tensor], Screen]:
        basis = p.basis[:, :n_directions]
        W = basis.t() @ p.W
        w_error = rest(p.W, W, 0)

        def screen(x: Tensor) -> Screen:
            projected = x @ basis
            return Screen(torch.addmm(p.bias, projected, W), rest(x, projected, 1), w_error)

        return screen

    return prepare


def rest(whole: Tensor, part: Tensor, dim: int) -> Tensor:
    """Norm of what a projection leaves out."""
    squares = whole.square().sum(dim, keepdim=True) - part.square().sum(dim, keepdim=True)
    return squares.clamp(min=0).sqrt()


def clusters(p: Problem) -> Callable[[Tensor], Screen]:
    """Each encoder column stands for its cluster's centre, and is as far from it as it is. The clusters are free."""
    far = (p.W - p.centres[:, p.cluster]).norm(dim=0, keepdim=True)
    return lambda x: Screen((x @ p.centres)[:, p.cluster].add_(p.bias), x.norm(dim=1, keepdim=True), far)


def int8(p: Problem) -> Callable[[Tensor], Screen]:
    """Rows and columns in 8 bits with a scale each, multiplied in integers."""
    W_scale = p.W.abs().amax(0, keepdim=True) / INT8
    W = (p.W / W_scale).round_()
    W_int, w_error = W.to(torch.int8), rounding_of_columns(p.W, W * W_scale)

    def screen(x: Tensor) -> Screen:
        x_scale = x.abs().amax(1, keepdim=True) / INT8
        rounded = (x / x_scale).round_()
        product = torch.ops.aten._int_mm(rounded.to(torch.int8), W_int).float().mul_(x_scale)
        return Screen(torch.addcmul(p.bias, product, W_scale), rounding_of_rows(x, rounded * x_scale), w_error)

    return screen


def bf16(p: Problem) -> Callable[[Tensor], Screen]:
    """Rows and columns in bfloat16, accumulated in float32: the counts of a machine that has it, not its time."""
    W = p.W.bfloat16().float()
    w_error = rounding_of_columns(p.W, W)

    def screen(x: Tensor) -> Screen:
        rounded = x.bfloat16().float()
        return Screen(torch.addmm(p.bias, rounded, W), rounding_of_rows(x, rounded), w_error)

    return screen


def rounding_of_rows(x: Tensor, rounded: Tensor) -> Tensor:
    """The rows' part of |x·w - x'·w'| <= |x - x'||w| + |x'||w - w'|."""
    return torch.stack([(x - rounded).norm(dim=1), rounded.norm(dim=1)], dim=1)


def rounding_of_columns(W: Tensor, rounded: Tensor) -> Tensor:
    """The columns' part."""
    return torch.stack([W.norm(dim=0), (W - rounded).norm(dim=0)])


def probably(way: Way) -> Way:
    """The same with bounds of six standard deviations: no certificate."""

    def prepare(p: Problem) -> Callable[[Tensor], Screen]:
        screen = way(p)

        def weaker(x: Tensor) -> Screen:
            guess, x_error, w_error = screen(x)
            return Screen(guess, x_error * SIX_SIGMA, w_error)

        return weaker

    return prepare


WAYS: dict[str, Way] = {
    "64 principal directions": low_rank(64),
    "256 principal directions": low_rank(256),
    f"{N_CLUSTERS} clusters": clusters,
    "int8": int8,
    "int8, six sigma": probably(int8),
    "bfloat16": bf16,
    "bfloat16, six sigma": probably(bf16),
}


# --- Judging a way ---


def judge(p: Problem, way: Way) -> Outcome:
    """Count, then time against the whole product and its top-k."""
    screen = way(p)(p.x)
    kept, if_known = survivors(screen), survivors(screen, p.kth)
    return Outcome(
        survivors=len(kept.indices) / len(p.x),
        survivors_if_known=len(if_known.indices) / len(p.x),
        recall=recall(p, kept.indices, kept.offsets.diff()),
        recall_of_guess={m: recall(p, row_largest(screen.guess, m)) for m in (K, 2 * K, 4 * K)},
        timing=timed(lambda: certified(p, way), lambda: whole(p)),
        timing_of_guess=timed(lambda: guessed(p, way), lambda: whole(p)),
    )


def timed(a: Callable[[], object], b: Callable[[], object]) -> Paired:
    """The two in turn, whatever they return."""
    return paired(lambda: (a(), None)[1], lambda: (b(), None)[1])


def whole(p: Problem, largest: Callable[..., object] = torch.topk) -> None:
    """What there is to beat."""
    largest(torch.addmm(p.bias, p.x, p.W), K, sorted=False)


def certified(p: Problem, way: Way) -> None:
    """Screen and compute what is left, each by itself or all together, whichever is cheaper; a block at a time."""
    screen = way(p)
    for x in p.x.split(BLOCK):
        kept = survivors(screen(x))
        if len(kept.indices) < BREAK_EVEN * len(x) * D_SAE:
            exact(p, x, kept.indices, kept.offsets[:-1])
        else:
            torch.addmm(p.bias, x, p.W)


def guessed(p: Problem, way: Way) -> None:
    """The same with the guess's 2k largest for survivors."""
    screen = way(p)
    for x in p.x.split(BLOCK):
        exact_of_fixed_size(p, x, row_largest(screen(x).guess, 2 * K)).topk(K, sorted=False)


def survivors(screen: Screen, bound: Tensor | None = None) -> Pattern:
    """Latents that the bounds do not rule out."""
    guess, x_error, w_error = screen
    if bound is None:
        bound = kth_largest(torch.addmm(guess, x_error, w_error, alpha=-1))
    slack = bound - 1e-5 * bound.abs()  # the exact values are rounded too, to float32
    w_and_bound = torch.cat([w_error, torch.ones_like(w_error[:1])])
    return above(torch.addmm(guess, torch.cat([x_error, -slack], dim=1), w_and_bound), 0.0)


def kth_largest(values: Tensor) -> Tensor:
    """Of each row, [batch, 1]."""
    return values.gather(1, row_largest(values, K)).amin(dim=1, keepdim=True)


def exact(p: Problem, x: Tensor, latents: Tensor, starts: Tensor) -> Tensor:
    """x_i · w_j of the given latents of each row, less the bias."""
    counts = torch.diff(starts, append=torch.tensor([len(latents)]))
    rows = torch.arange(len(x)).repeat_interleave(counts)
    # what ATen has for a gradient is just these products, without a copy of the columns
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(x, p.W.t(), latents, starts, rows, 0)


def exact_of_fixed_size(p: Problem, x: Tensor, latents: Tensor) -> Tensor:
    """Pre-activations of as many latents of each row."""
    starts = torch.arange(0, latents.numel(), latents.shape[1])
    return exact(p, x, latents.flatten(), starts).view_as(latents) + p.bias[latents]


def recall(p: Problem, candidates: Tensor, counts: Tensor | None = None) -> float:
    """Share of the true k largest among each row's candidates; with `counts`, as many for each row."""
    rows = torch.arange(len(p.x))
    chosen = torch.zeros(len(p.x), D_SAE, dtype=torch.bool)
    chosen[rows[:, None] if counts is None else rows.repeat_interleave(counts), candidates] = True
    return chosen.gather(1, p.top).float().mean().item()


# --- Data and SAEs ---


def harvested(root: Path) -> Tensor:
    """The demo's activations, shuffled."""
    run = harvest(HarvestConfig(text=TextConfig(n_tokens=N_TOKENS)), root)
    rows = Activations(run).rows("train", ("normal", "sink"))
    with closing(rows.shuffled(BATCH, 0)) as batches:
        return torch.cat(list(islice(batches, len(rows) // BATCH)))


def states(x: Tensor, n_steps: int) -> Iterator[tuple[str, TopK]]:
    """One SAE as it is trained, twice an epoch before it is looked at: look before asking for the next."""
    sae = TopK(TopKConfig(d_in=D_IN, d_sae=D_SAE, k=K))
    epoch = x.split(BATCH)
    # after one step, which the warm-up makes all but none
    moments = {1: "initialised", n_steps // 2 - len(epoch): BEFORE, n_steps // 2: "half trained"}
    moments |= {n_steps - len(epoch): BEFORE, n_steps: "trained"}
    for step in train(sae, (epoch[i % len(epoch)] for i in range(n_steps)), TrainConfig(n_steps=n_steps, lr=1e-3)):
        if step.step in moments:
            yield moments[step.step], sae


@torch.no_grad()
def problem(sae: TopK, rows: Tensor) -> Problem:
    """What the SAE's encoder meets in these rows."""
    x = rows - sae.b_dec
    W, bias = sae.W_enc.t().contiguous().t(), sae.b_enc.clone()
    pre_acts = torch.addmm(bias, x, W)
    centres, cluster = grouped(W.t())
    basis = torch.linalg.eigh(x.t() @ x).eigenvectors.flip(1)
    return Problem(x, W, bias, basis, centres.t(), cluster, pre_acts.topk(K, dim=1).indices, kth_largest(pre_acts))


def grouped(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means from every ninth column or so."""
    centres = columns[:: len(columns) // N_CLUSTERS][:N_CLUSTERS].clone()
    for _ in range(N_LLOYD):
        nearest = torch.cdist(columns, centres).argmin(dim=1)
        counts = torch.bincount(nearest, minlength=N_CLUSTERS).clamp(min=1)
        centres = torch.zeros_like(centres).index_add_(0, nearest, columns) / counts[:, None]
    return centres, torch.cdist(columns, centres).argmin(dim=1)


def measure() -> bool:
    """Selection, then every way on every problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200, help="of training, more than two epochs of 22")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    selections = {name: pair for size in SIZES for name, pair in selected(*size)}
    found = [Figure(name, pair.ratio, "ratio") for name, pair in selections.items()]
    details: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as scratch:
        activations = harvested(Path(scratch))
    noise = torch.randn(activations.shape, generator=torch.Generator().manual_seed(0))
    for data, rows in {"activations": activations, "noise": noise}.items():
        found += studied(data, rows, args.steps, details)
    settings = {"n_threads": args.threads, "n_steps": args.steps, "n_tokens": N_TOKENS, "rows": BATCH, "d_sae": D_SAE}
    return write("train_selection", found, **settings, k=K, ways=details, **selections)


def selected(batch: int, d_sae: int) -> Iterator[tuple[str, Paired]]:
    """`sae.largest` against what torch offers, on normal pre-activations."""
    pre_acts = torch.randn(batch, d_sae, generator=torch.Generator().manual_seed(0))
    for k in KS:
        rows = timed(partial(row_largest, pre_acts, k), partial(pre_acts.topk, k, dim=1, sorted=False))
        yield f"row_largest / topk, {batch}x{d_sae}, k={k}", rows
    n = batch * K
    guess = torch.zeros(())
    flat = timed(
        lambda: batch_largest(lambda: iter([pre_acts]), batch, n, guess),
        lambda: pre_acts.flatten().topk(n, sorted=False),
    )
    yield f"batch_largest / flat topk, {batch}x{d_sae}, k={K}", flat
    bound = float(pre_acts.flatten().topk(n).values[-1])
    ragged = timed(lambda: above(pre_acts, bound), lambda: torch.nonzero(pre_acts > bound))
    yield f"above / nonzero, {batch}x{d_sae}, k={K}", ragged


def studied(data: str, rows: Tensor, n_steps: int, details: dict[str, dict]) -> list[Figure]:
    """All that is asked of one kind of data; `details` gets what the figures leave out."""
    figures: list[Figure] = []
    earlier: Tensor | None = None
    for state, sae in states(rows, n_steps):
        p = problem(sae, rows[:BATCH])
        where = f"{data}, {state}"
        if state in JUDGED:
            outcomes = {f"{where}, {name}": judge(p, way) for name, way in WAYS.items()}
            details |= {name: asdict(outcome) for name, outcome in outcomes.items()}
            figures += [figure for name, outcome in outcomes.items() for figure in shown(name, outcome)]
            pair = timed(partial(whole, p, row_largest), partial(whole, p))
            figures.append(Figure(f"{where}, product + row_largest: time / product + topk", pair.ratio, "ratio"))
        if earlier is not None:
            figures += [figure for m in (K, 4 * K, 16 * K) for figure in hint(where, p, earlier, m)]
        earlier = torch.addmm(p.bias, p.x, p.W) if state == BEFORE else None
    return figures


def shown(name: str, outcome: Outcome) -> list[Figure]:
    return [
        Figure(f"{name}: survivors", outcome.survivors, f"of {D_SAE}"),
        Figure(f"{name}: recall of the guess's {2 * K} largest", outcome.recall_of_guess[2 * K], ""),
        Figure(f"{name}: survivors, time / product + topk", outcome.timing.ratio, "ratio"),
        Figure(f"{name}: those {2 * K}, time / product + topk", outcome.timing_of_guess.ratio, "ratio"),
    ]


def hint(where: str, p: Problem, earlier: Tensor, m: int) -> list[Figure]:
    """How many of the k largest were among the m largest when the row was last seen, and what looking costs."""
    latents = row_largest(earlier, m)
    pair = timed(lambda: exact_of_fixed_size(p, p.x, latents).topk(K), lambda: whole(p))
    name = f"{where}, {m} largest of the epoch before"
    time = Figure(f"{name}: time / product + topk", pair.ratio, "ratio")
    return [Figure(f"{name}: recall", recall(p, latents), ""), time]


if __name__ == "__main__":
    main(measure)
