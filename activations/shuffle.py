"""Shuffled batches from blocks of rows: exactly once an epoch, resumable at any batch, and measured.

Blocks are opened a pool at a time, in a new order every epoch; the rows of a pool are shuffled together. Rows were
shuffled within their window when they were written, so that each batch mixes as many windows as the pool has blocks.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, Full, Queue
from time import perf_counter
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from store.errors import UsageError

POOL_ROWS = 262_144
"""Rows shuffled together, about: sixteen shards, or eight windows, of the default size."""
POLL_S = 0.1
"""How often a waiting producer looks whether it is still wanted."""


class ShuffleState(NamedTuple):
    """Where the stream of rows stands: all that is needed to go on exactly."""

    seed: int
    epoch: int
    pool: int
    offset: int
    """Rows of the pool that were handed out."""
    of: str = ""
    """What the rows are of: harvest, hook point and choice of rows."""


class Mixing(NamedTuple):
    """How well a batch mixes the text."""

    n_distinct: int
    """Sequences with at least one row in the batch."""
    entropy: float
    """Of the rows' sequences, as a share of the largest possible, log min(rows, sequences there are to draw from): 1
    when no sequence is there more than once, or all of them are there equally often."""


class Prepared(NamedTuple):
    """A batch, and where the stream stands after it."""

    x: Tensor
    mixing: Mixing
    after: ShuffleState


@runtime_checkable
class OpenRows(Protocol):
    """Rows ready to be read: of one hook point, or of several side by side."""

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What joins each row to its text."""
        ...

    def tensor(self, rows: np.ndarray, dtype: str) -> Tensor:
        """`[len(rows), d_in]`: the vectors of some rows."""
        ...


@dataclass(frozen=True)
class Pool:
    """Opened blocks and the shuffled order of their chosen rows."""

    opened: Sequence[OpenRows]
    block: np.ndarray
    """`[n]` which of `opened`."""
    row: np.ndarray
    """`[n]` which of its rows."""
    seq: np.ndarray
    """`[n]`."""

    def __len__(self) -> int:
        return len(self.row)


class Shuffled(Iterator[Tensor]):
    """Endless `[batch, d_in]` float32 batches. Close it, or let it go, to stop its thread."""

    def __init__(
        self,
        blocks: Sequence[Any],
        select: Callable[[dict[str, np.ndarray]], np.ndarray],
        *,
        batch_size: int,
        seed: int,
        dtype: str,
        n_sequences: int,
        of: str = "",
        prefetch: int = 2,
        state: ShuffleState | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            blocks: what is to be read.
            select: the numbers of the rows that are wanted, from a block's columns.
            batch_size: rows of every batch.
            seed: of the order.
            dtype: of the stored vectors.
            n_sequences: that rows may come from.
            of: what the rows are of: no other's state is taken.
            prefetch: batches prepared in a thread while one is used; `state`: to go on from.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size} is not positive: choose at least 1")
        if state is not None and state.seed != seed:
            raise UsageError(
                f"the reader's state has seed {state.seed}, not {seed}: go on with the seed it was taken with"
            )
        if state is not None and state.of != of:
            raise UsageError(f"the reader's state is of other rows ({state.of}) than these ({of}): ask for those again")
        self.state = state or ShuffleState(seed, 0, 0, 0, of)
        self.mixing = Mixing(0, 0.0)
        """Of the last batch."""
        self.wait_s = 0.0
        """Seconds that whoever asked for batches had to wait."""
        batches = _Source(blocks, select, batch_size, dtype, n_sequences).batches(self.state)
        self._batches = _Prefetched(batches, prefetch) if prefetch else batches

    def __next__(self) -> Float[Tensor, "batch d_in"]:
        started = perf_counter()
        batch = next(self._batches)
        self.wait_s += perf_counter() - started
        self.state, self.mixing = batch.after, batch.mixing
        return batch.x

    def close(self) -> None:
        """Stop preparing batches."""
        self._batches.close()


class _Source:
    """Makes batches one after the other; knows nothing of threads."""

    def __init__(
        self, blocks: Sequence[Any], select: Callable[..., np.ndarray], batch_size: int, dtype: str, n_sequences: int
    ) -> None:
        self._blocks, self._select, self._dtype = blocks, select, dtype
        self._batch_size, self._n_sequences = batch_size, n_sequences
        per_pool = max(1, round(POOL_ROWS / (sum(block.n_rows for block in blocks) / len(blocks))))
        self._n_pools = -(-len(blocks) // per_pool)

    def batches(self, state: ShuffleState) -> Generator[Prepared, None, None]:
        """All batches after `state`, endlessly."""
        parts: list[tuple[Tensor, np.ndarray]] = []
        wanted = self._batch_size
        for pool, start, after in self._pools(state):
            while start < len(pool):
                stop = min(start + wanted, len(pool))
                parts.append((self._gather(pool, start, stop), pool.seq[start:stop]))
                wanted -= stop - start
                start = stop
                if not wanted:
                    yield Prepared(*self._joined(parts), after._replace(offset=stop))
                    parts, wanted = [], self._batch_size

    def _joined(self, parts: list[tuple[Tensor, np.ndarray]]) -> tuple[Tensor, Mixing]:
        x = parts[0][0] if len(parts) == 1 else torch.cat([part for part, _ in parts])
        return x, mixing(np.concatenate([seq for _, seq in parts]), self._n_sequences)

    def _pools(self, state: ShuffleState) -> Iterator[tuple[Pool, int, ShuffleState]]:
        """Pools, the row to begin with, and the state of the stream at the pool's beginning."""
        seed, epoch, first, offset, of = state
        while True:
            groups = np.array_split(np.random.default_rng([seed, epoch]).permutation(len(self._blocks)), self._n_pools)
            n_rows = 0
            for number in range(first, self._n_pools):
                pool = self._open(groups[number], [seed, epoch, number])
                n_rows += len(pool)
                yield pool, offset, ShuffleState(seed, epoch, number, 0, of)
                offset = 0
            if first == 0 and not n_rows:
                raise UsageError("no rows match: choose other token classes, or harvest more text")
            epoch, first = epoch + 1, 0

    def _open(self, group: np.ndarray, seed: list[int]) -> Pool:
        opened = [self._blocks[number].open() for number in group]
        kept = [self._select(rows.columns) for rows in opened]
        block = np.repeat(np.arange(len(opened), dtype=np.int32), [len(rows) for rows in kept])
        row = np.concatenate(kept)
        seq = np.concatenate([rows.columns["seq"][keep] for rows, keep in zip(opened, kept, strict=True)])
        order = np.random.default_rng(seed).permutation(len(row))
        return Pool(opened, block[order], row[order], seq[order])

    def _gather(self, pool: Pool, start: int, stop: int) -> Tensor:
        block, row = pool.block[start:stop], pool.row[start:stop]
        # Ascending rows block by block: a memory map reads forwards much faster than at random.
        order = np.lexsort((row, block))
        bounds = np.searchsorted(block[order], np.arange(len(pool.opened) + 1))
        out: Tensor | None = None
        for number, rows in enumerate(pool.opened):
            here = order[bounds[number] : bounds[number + 1]]
            if len(here):
                some = rows.tensor(row[here], self._dtype)
                if out is None:
                    out = torch.empty(stop - start, some.shape[1], dtype=some.dtype)
                out.index_copy_(0, torch.from_numpy(here), some)
        assert out is not None, "a batch of no rows"
        return out.float()


def mixing(seq: np.ndarray, n_sequences: int) -> Mixing:
    """How well rows from these sequences are mixed.

    Args:
        seq: `[n]` the sequence of each row of a batch.
        n_sequences: there are to draw from.
    """
    _, counts = np.unique(seq, return_counts=True)
    share = counts / len(seq)
    largest = np.log(min(len(seq), n_sequences))
    return Mixing(len(counts), float(-(share * np.log(share)).sum() / largest) if largest > 0 else 1.0)


class _Prefetched(Iterator[Prepared]):
    """Items of an iterator, prepared in a thread a few ahead."""

    def __init__(self, items: Iterator[Prepared], n_ahead: int) -> None:
        self._queue: Queue[Prepared | BaseException] = Queue(n_ahead)
        self._stopped = threading.Event()
        # The thread holds no reference to this object, so that letting go of it ends the thread.
        arguments = (items, self._queue, self._stopped)
        self._thread = threading.Thread(target=_fill, args=arguments, name="prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> Prepared:
        if self._stopped.is_set():
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, BaseException):
            self.close()
            raise item
        return item

    def close(self) -> None:
        """Stop the thread, and wait until it has."""
        self._stopped.set()
        while True:
            try:
                self._queue.get_nowait()
            except Empty:
                break
        self._thread.join()

    def __del__(self) -> None:
        self._stopped.set()


def _fill(items: Iterator[Prepared], queue: "Queue[Prepared | BaseException]", stopped: threading.Event) -> None:
    try:
        for item in items:
            if not _put(item, queue, stopped):
                return
    except BaseException as error:  # raised again where the batch is asked for
        _put(error, queue, stopped)


def _put(item: "Prepared | BaseException", queue: "Queue[Prepared | BaseException]", stopped: threading.Event) -> bool:
    """Whether the item found a place before nobody wanted it any more."""
    while not stopped.is_set():
        try:
            queue.put(item, timeout=POLL_S)
        except Full:
            continue
        return True
    return False
