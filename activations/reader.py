"""Harvested activations read back: shuffled `[batch, d_in]` batches and statistics, by split and token class."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from store.errors import UsageError
from store.run import Run
from store.shards import TOKEN_CLASSES, Shard

CHUNK_ROWS = 8192


class Activations:
    """One hook point of a finished harvest."""

    def __init__(self, run: Run, hook_point: str | None = None) -> None:
        """Open `hook_point`, or the only one there is.

        Raises:
            UsageError: the harvest has no such hook point, or several and none is named.
        """
        known = run.config["harvest"]["hook_points"]
        if hook_point is None and len(known) > 1:
            raise UsageError(
                f"harvest {run.id} has {len(known)} hook points: name one with --hook-point: {', '.join(known)}"
            )
        self.hook_point = hook_point or known[0]
        if self.hook_point not in known:
            raise UsageError(f"harvest {run.id} has no '{hook_point}': it has {', '.join(known)}")
        self.run = run
        self.shards = [Shard(path) for path in shard_paths(run.folder, self.hook_point)]

    @property
    def d_in(self) -> int:
        """Width of a vector."""
        return self.shards[0].d_in

    @property
    def sink_norm(self) -> float:
        """Tokens with a larger norm are classed as sinks."""
        return self.run.results["hook_points"][self.hook_point]["sink_norm"]

    @cached_property
    def heldout_docs(self) -> np.ndarray:
        """`[n_docs]` bool: held out of training."""
        table = pq.read_table(self.run.folder / "documents.parquet", columns=["split"])
        return table.column("split").to_numpy() == "heldout"

    def rows(self, split: str = "train", classes: Sequence[str] = ("normal",), *, first: bool = False) -> "RowSet":
        """The rows of a split and of some token classes.

        Args:
            split: `train`, `heldout` or `all`.
            classes: of `normal special role sink`.
            first: whether to take first positions too, where their class is asked for.
        """
        unknown = set(classes) - set(TOKEN_CLASSES)
        if unknown:
            raise UsageError(
                f"token class {', '.join(sorted(unknown))} is not known: choose of {', '.join(TOKEN_CLASSES)}"
            )
        wanted = [TOKEN_CLASSES[name] for name in classes]
        kept = [self._kept(shard, split, wanted, first) for shard in self.shards]
        return RowSet(self.shards, kept)

    def _kept(self, shard: Shard, split: str, wanted: list[int], first: bool) -> np.ndarray:
        columns = shard.columns
        keep = np.isin(columns["token_class"], wanted)
        if not first:
            keep &= columns["pos"] > 0
        if split != "all":
            keep &= self.heldout_docs[columns["doc_id"]] == (split == "heldout")
        return np.flatnonzero(keep)


class RowSet:
    """Rows chosen from several shards."""

    def __init__(self, shards: Sequence[Shard], kept: Sequence[np.ndarray]) -> None:
        """`kept[i]` are row numbers within `shards[i]`."""
        self._shards = shards
        self._shard_of = np.repeat(np.arange(len(shards), dtype=np.int32), [len(rows) for rows in kept])
        self._row_of = np.concatenate([*kept, np.empty(0, np.int64)]).astype(np.int64)

    def __len__(self) -> int:
        return len(self._row_of)

    def take(self, chosen: np.ndarray) -> Float[Tensor, "n d_in"]:
        """The vectors at `chosen`, in that order, as float32."""
        out = torch.empty(len(chosen), self._shards[0].d_in)
        shard_of, row_of = self._shard_of[chosen], self._row_of[chosen]
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            # Ascending rows: a memory map reads forwards much faster than at random.
            here = here[np.argsort(row_of[here])]
            shard = self._shards[number]
            out[torch.from_numpy(here)] = to_float(np.asarray(shard.vectors[row_of[here]]), shard.dtype)
        return out

    def in_order(self, batch_size: int = CHUNK_ROWS) -> Iterator[Float[Tensor, "n d_in"]]:
        """Every row once, as stored."""
        for start in range(0, len(self), batch_size):
            yield self.take(np.arange(start, min(start + batch_size, len(self))))

    def shuffled(self, batch_size: int, seed: int) -> Iterator[Float[Tensor, "batch d_in"]]:
        """Endless batches: every row exactly once an epoch, each epoch in a new order; a batch may span two epochs.

        Raises:
            UsageError: there are no rows.
        """
        if not len(self):
            raise UsageError("no rows match: choose other token classes, or harvest more text")
        epoch, waiting = 0, np.empty(0, np.int64)
        while True:
            while len(waiting) < batch_size:
                order = np.random.default_rng([seed, epoch]).permutation(len(self))
                waiting, epoch = np.concatenate([waiting, order]), epoch + 1
            yield self.take(waiting[:batch_size])
            waiting = waiting[batch_size:]


def shard_paths(folder: Path, hook_point: str) -> list[Path]:
    """Shard files of a hook point, in the order they were written.

    Raises:
        UsageError: there are none.
    """
    paths = sorted((folder / hook_point).glob("shard-*.parquet"))
    if not paths:
        raise UsageError(f"{folder / hook_point} has no shard: delete {folder} and harvest again")
    return paths


def to_float(stored: np.ndarray, dtype: str) -> Float[Tensor, "n d_in"]:
    """Stored vectors as float32."""
    if dtype == "bfloat16":
        return torch.from_numpy(stored.view(np.int16).copy()).view(torch.bfloat16).float()
    return torch.from_numpy(stored.astype(np.float32))


def summarise(folder: Path, hook_point: str, heldout: Sequence[bool], sink_norm: float) -> dict[str, Any]:
    """Counts by token class, and mean and spread of the normal training rows, in float64.

    `mean` is what mean ablation puts in place of an activation; shards are merged by Chan et al. 1979.
    """
    held = np.asarray(heldout)
    counts = dict.fromkeys(TOKEN_CLASSES, 0)
    n, mean, spread, norms = 0, np.zeros(1), np.zeros(1), 0.0
    for path in shard_paths(folder, hook_point):
        shard = Shard(path)
        classes = shard.columns["token_class"]
        for name, number in TOKEN_CLASSES.items():
            counts[name] += int((classes == number).sum())
        keep = (classes == TOKEN_CLASSES["normal"]) & ~held[shard.columns["doc_id"]]
        if not keep.any():
            continue
        x = to_float(np.asarray(shard.vectors[keep]), shard.dtype).double().numpy()
        delta = x.mean(0) - mean
        spread = spread + ((x - x.mean(0)) ** 2).sum(0) + delta**2 * n * len(x) / (n + len(x))
        mean = mean + delta * len(x) / (n + len(x))
        n, norms = n + len(x), norms + float(np.linalg.norm(x, axis=1).sum())
    return {
        "n_rows": counts,
        "sink_norm": sink_norm,
        "n_normal_train": n,
        "mean_norm": norms / max(n, 1),
        "mean": mean.tolist(),
        "total_variance": float(spread.sum() / max(n, 1)),
    }
