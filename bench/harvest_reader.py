"""How long training waits for its rows: the share of a step that is spent in the reader's `next`.

Run from anywhere: `python bench/harvest_reader.py`. A TopK SAE of the demo's size is trained from a harvest whose
activations are random numbers; the same training from batches that lie in memory says what a reader that works in the
background takes from the step itself.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from activations.reader import Activations
from bench import words
from bench.harness import Figure, main, paired, write
from bench.sides import N_THREADS, STUB_HOOK, stub_run
from sae import TopK, TopKConfig
from sae.train import TrainConfig, train

N_TOKENS = 131_072
D_SAE, K, BATCH_ROWS = 4_608, 32, 2_048
N_STEPS, N_MEMORY_BATCHES = 64, 8
"""More steps than an epoch has, so that the reader begins a new one within them."""
REPEATS = 5
REACH = "<= 0.03"


class Waiting:
    """Batches, and the seconds spent waiting for each."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._batches = iter(batches)
        self.seconds: list[float] = []

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        started = time.perf_counter()
        batch = next(self._batches)
        self.seconds.append(time.perf_counter() - started)
        return batch


def measure() -> bool:
    """Training from the harvest and from memory in turn."""
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        rows = Activations(stub_run(Path(scratch), N_TOKENS), STUB_HOOK).rows("train")
        n_rows = len(rows)
        with closing(rows.shuffled(BATCH_ROWS, 0)) as batches:
            in_memory = list(islice(batches, N_MEMORY_BATCHES))
        shares: list[float] = []
        later_shares: list[float] = []

        def from_harvest() -> float:
            with closing(rows.shuffled(BATCH_ROWS, len(shares))) as batches:
                waiting = Waiting(batches)
                spent = train_seconds(waiting)
            shares.append(sum(waiting.seconds) / spent)
            later_shares.append(sum(waiting.seconds[1:]) / spent)
            return spent

        pair = paired(from_harvest, lambda: train_seconds(cycle(in_memory)), REPEATS)
    figures = [
        Figure("share of training spent waiting for rows", median(shares[-REPEATS:]), "", REACH),
        Figure("the same, after the first batch", median(later_shares[-REPEATS:]), ""),
        Figure("training from the harvest / from memory, seconds", pair.ratio, "ratio"),
        Figure("step from the harvest", pair.median_a / N_STEPS, "s"),
        Figure("training from the harvest", N_STEPS * BATCH_ROWS / pair.median_a, "rows/s"),
    ]
    settings = {"d_in": words.D_MODEL, "d_sae": D_SAE, "k": K, "batch_rows": BATCH_ROWS, "n_steps": N_STEPS}
    return write(
        "harvest_reader",
        figures,
        n_rows=n_rows,
        n_threads=N_THREADS,
        shares=shares[-REPEATS:],
        **settings,
        **{"training, from the harvest / from memory": pair},
    )


def train_seconds(batches: Iterable[Tensor]) -> float:
    """Wall seconds of a whole training, its first rows and initialisation included."""
    torch.manual_seed(0)
    sae = TopK(TopKConfig(d_in=words.D_MODEL, d_sae=D_SAE, k=K))
    # As long as the run: these rows have nothing to learn, and AuxK would run on latents that are silent for good.
    cfg = TrainConfig(n_steps=N_STEPS, init_rows=BATCH_ROWS, dead_after_fraction=1.0)
    started = time.perf_counter()
    for _ in train(sae, batches, cfg):
        pass
    return time.perf_counter() - started


if __name__ == "__main__":
    main(measure)
