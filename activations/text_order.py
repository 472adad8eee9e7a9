"""Rows in the order of their text, by sequence and position, with the columns that say where each is.

A harvest shuffles a window's rows before it writes them. Here they are put back, so that the order depends on the text
and on nothing else: not on the shuffle's seed, not on how many rows a shard or a window has.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activations.reader import RowSet
from activations.shuffle import OpenRows


class Placed(NamedTuple):
    """Some rows and where they are from."""

    x: Float[Tensor, "n d_in"]
    columns: dict[str, np.ndarray]
    """`[n]` for each of `token_id doc_id seq pos token_class`."""

    def cut(self, start: int, stop: int) -> "Placed":
        """Rows `start` to `stop`."""
        return Placed(self.x[start:stop], {name: column[start:stop] for name, column in self.columns.items()})

    def followed_by(self, other: "Placed") -> "Placed":
        """These and then the others."""
        columns = {name: np.concatenate([column, other.columns[name]]) for name, column in self.columns.items()}
        return Placed(torch.cat([self.x, other.x]), columns)


def in_text_order(rows: RowSet, batch_size: int, n_rows: int | None = None) -> Iterator[Placed]:
    """Every chosen row once, in float32, in batches that are all full but the last.

    Args:
        rows: of one hook point.
        batch_size: rows of a batch.
        n_rows: end after so many; None for all.
    """
    left = n_rows
    for batch in _full(_pieces(rows, batch_size), batch_size):
        batch = batch if left is None else batch.cut(0, left)
        left = left if left is None else left - len(batch.x)
        if len(batch.x):
            yield batch
        if left == 0:
            return


def _pieces(rows: RowSet, batch_size: int) -> Iterator[Placed]:
    """The rows of each window, sorted, at most `batch_size` at a time."""
    for _, blocks in groupby(rows.activations.blocks, lambda block: block.window):
        opened = [block.open() for block in blocks]
        chosen = [rows.selection.of(some.columns) for some in opened]
        names = opened[0].columns
        columns = {n: np.concatenate([o.columns[n][c] for o, c in zip(opened, chosen, strict=True)]) for n in names}
        block = np.repeat(np.arange(len(chosen)), [len(some) for some in chosen])
        row = np.concatenate(chosen)
        order = np.lexsort((columns["pos"], columns["seq"]))
        for start in range(0, len(order), batch_size):
            here = order[start : start + batch_size]
            x = _vectors(opened, rows.activations.dtype, block[here], row[here])
            yield Placed(x, {name: column[here] for name, column in columns.items()})


def _vectors(opened: Sequence[OpenRows], dtype: str, block: np.ndarray, row: np.ndarray) -> Float[Tensor, "n d_in"]:
    """Row `row[i]` of block `block[i]`, for every i."""
    parts = [(np.flatnonzero(block == number), some) for number, some in enumerate(opened)]
    vectors = torch.cat([some.tensor(row[here], dtype).float() for here, some in parts])
    return torch.empty_like(vectors).index_copy_(
        0, torch.from_numpy(np.concatenate([here for here, _ in parts])), vectors
    )


def _full(pieces: Iterable[Placed], size: int) -> Iterator[Placed]:
    """The same rows in batches of `size`, across the ends of windows."""
    held: Placed | None = None
    for piece in pieces:
        held = piece if held is None else held.followed_by(piece)
        while len(held.x) >= size:
            yield held.cut(0, size)
            held = held.cut(size, len(held.x))
    if held is not None and len(held.x):
        yield held
