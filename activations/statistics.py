"""Moments of activation vectors in float64, mergeable: per hook point, split and token class.

Batches are merged by Chan, Golub and LeVeque 1979, so that no large mean eats the digits of a small variance. Token
classes are kept apart, since a few giant vectors would decide any figure over all; a reader merges those it asks for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from store import layout
from store.errors import UsageError
from store.files import whole_file
from store.run import Run
from store.shards import TOKEN_CLASSES, Rows, as_torch
from store.tables import STATISTICS

CHUNK_VALUES = 32_768
"""Values looked at together: they stay in a core's cache, and torch takes so few on in the calling thread alone. More
would start its other threads for a microsecond's work each, which is slow at best, and very slow beside busy ones."""
SPLITS = ("train", "heldout")


@dataclass(frozen=True)
class Moments:
    """Count, mean and spread of some rows."""

    n: int
    mean: np.ndarray
    """`[d_in]`."""
    spread: np.ndarray
    """`[d_in]` sum of squared differences from the mean."""
    norm_sum: float
    max_abs: float
    """Largest absolute value of any dimension."""

    @classmethod
    def none(cls, d_in: int) -> "Moments":
        """Of no rows."""
        return cls(0, np.zeros(d_in), np.zeros(d_in), 0.0, 0.0)

    @property
    def variance(self) -> np.ndarray:
        """`[d_in]` mean squared difference from the mean."""
        return self.spread / max(self.n, 1)

    @property
    def total_variance(self) -> float:
        """Mean squared distance from the mean: the variances' sum."""
        return float(self.variance.sum())

    @property
    def mean_square_norm(self) -> float:
        """Mean of ‖x‖²."""
        return float(self.variance.sum() + np.square(self.mean).sum())

    @property
    def mean_norm(self) -> float:
        """Mean of ‖x‖."""
        return self.norm_sum / max(self.n, 1)

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together."""
        n = self.n + other.n
        if not n:
            return self
        delta = other.mean - self.mean
        return Moments(
            n=n,
            mean=self.mean + delta * (other.n / n),
            spread=self.spread + other.spread + np.square(delta) * (self.n * other.n / n),
            norm_sum=self.norm_sum + other.norm_sum,
            max_abs=max(self.max_abs, other.max_abs),
        )


Group = tuple[str, str, str]
"""Hook point, split, token class."""


def moments(x: Tensor, rows: Tensor | None = None) -> Moments:
    """Of the rows of `x`, `[n, d_in]` in any floating dtype, or of some: summed as differences from a provisional mean,
    that of the first few."""
    rows = torch.arange(len(x)) if rows is None else rows
    n, d_in = len(rows), x.shape[1]
    if not n:
        return Moments.none(d_in)
    chunks = rows.split(max(1, CHUNK_VALUES // d_in))
    shift = x.index_select(0, chunks[0]).double().numpy().mean(axis=0)
    total, squares = np.zeros(d_in), np.zeros(d_in)
    norm_sum = max_abs = 0.0
    for some in chunks:
        single = x.index_select(0, some).float()
        least, most = torch.aminmax(single)
        max_abs = max(max_abs, -float(least), float(most))
        norm_sum += float(torch.linalg.vector_norm(single, dim=1).double().sum())
        deviation = np.subtract(single.numpy(), shift)
        total += np.add.reduce(deviation, axis=0)
        squares += np.einsum("ij,ij->j", deviation, deviation)
    return Moments(n, shift + total / n, squares - total * total / n, norm_sum, max_abs)


def by_group(rows: Mapping[str, Rows], dtype: str, heldout: np.ndarray) -> dict[Group, Moments]:
    """The moments of every hook point, split and token class that has rows.

    Args:
        rows: by hook point.
        dtype: of their stored vectors.
        heldout: `[n_documents]` whether a document is held out.
    """
    return {group: found for name, some in rows.items() for group, found in _groups(name, some, dtype, heldout)}


def _groups(hook_point: str, rows: Rows, dtype: str, heldout: np.ndarray) -> Iterator[tuple[Group, Moments]]:
    x, is_heldout = as_torch(rows.vectors, dtype), heldout[rows.columns["doc_id"]]
    for split in SPLITS:
        for name, number in TOKEN_CLASSES.items():
            here = (rows.columns["token_class"] == number) & (is_heldout == (split == "heldout"))
            if here.any():
                yield (hook_point, split, name), moments(x, torch.from_numpy(np.flatnonzero(here)))


def merged(many: Iterable[Mapping[Group, Moments]]) -> dict[Group, Moments]:
    """Several sets of groups as one."""
    out: dict[Group, Moments] = {}
    for groups in many:
        for group, found in groups.items():
            out[group] = out[group].merge(found) if group in out else found
    return dict(sorted(out.items()))


def write_statistics(path: Path, groups: Mapping[Group, Moments]) -> None:
    """Write one row per group."""
    rows: list[dict[str, Any]] = [
        {
            "hook_point": hook_point,
            "split": split,
            "token_class": token_class,
            "n": found.n,
            "mean": found.mean.tolist(),
            "variance": found.variance.tolist(),
            "mean_square_norm": found.mean_square_norm,
            "mean_norm": found.mean_norm,
            "max_abs": found.max_abs,
        }
        for (hook_point, split, token_class), found in groups.items()
    ]
    with whole_file(path) as scratch:
        pq.write_table(pa.Table.from_pylist(rows, schema=STATISTICS), scratch, compression="zstd")


def read_statistics(path: Path) -> dict[Group, Moments]:
    """The groups in a file that `write_statistics` wrote.

    Raises:
        UsageError: the file is missing or damaged.
    """
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path} cannot be read ({error}): `monosem harvest --repair` its run") from error
    return {
        (row["hook_point"], row["split"], row["token_class"]): Moments(
            n=row["n"],
            mean=np.array(row["mean"]),
            spread=np.array(row["variance"]) * row["n"],
            norm_sum=row["mean_norm"] * row["n"],
            max_abs=row["max_abs"],
        )
        for row in rows
    }


def mean_norm(run: Run, hook_point: str) -> float | None:
    """Mean length of activations on a harvest's normal tokens; None where nothing was counted.

    Raises:
        UsageError: what was counted is damaged.
    """
    path = run.folder / layout.STATISTICS
    if not path.exists():
        return None
    found = chosen(read_statistics(path), hook_point, "all", ("normal",))
    return found.mean_norm if found.n else None


def chosen(groups: Mapping[Group, Moments], hook_point: str, split: str, classes: Sequence[str]) -> Moments:
    """The moments of a hook point over some token classes; `split` is `train`, `heldout` or `all`."""
    parts = [
        found
        for (place, side, token_class), found in groups.items()
        if place == hook_point and split in (side, "all") and token_class in classes
    ]
    widths = {len(found.mean) for (place, _, _), found in groups.items() if place == hook_point}
    return reduce(Moments.merge, parts, Moments.none(max(widths, default=0)))
