"""Puts a window's rows on disk: shards, their statistics, and last the receipt that says the window is done.

One window is written in a thread, and its statistics are taken in another, while the next one is computed.
"""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from activations.statistics import Group, Moments, by_group, write_statistics
from activations.window import WindowRows
from store import layout
from store.files import FileEntry, file_entry, write_json
from store.shards import DTypeName, Rows, ShardToWrite, write_shards

Entry = dict[str, Any]
"""What the manifest says of a file: `n_bytes`, `sha256`, and for a shard its rows, width, dtype and hook point."""


class ShardWriter:
    """Writes windows in the background, one at a time; leaving the context waits for the last one."""

    def __init__(
        self,
        folder: Path,
        dtype: DTypeName,
        shard_rows: int,
        sinks: Mapping[str, float],
        heldout: np.ndarray,
        metadata: Mapping[str, str],
    ) -> None:
        """Nothing is written yet.

        Args:
            folder: of the run.
            dtype: of the vectors.
            shard_rows: rows of a shard, about.
            sinks: by hook point, the norm above which a token is a sink.
            heldout: `[n_documents]` bool.
            metadata: goes into every shard.
        """
        self._folder, self._shard_rows = folder, shard_rows
        self._dtype: DTypeName = dtype
        self._sinks, self._heldout, self._metadata = sinks, heldout, dict(metadata)
        self._writing = ThreadPoolExecutor(1, "write")
        self._counting = ThreadPoolExecutor(1, "count")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            # What is half written after an error is left to finish, so that no thread outlives its run's lock.
            self._writing.shutdown()
            self._counting.shutdown()

    def submit(self, window: WindowRows, only: Collection[str] | None = None) -> None:
        """Write a window once the one before it is written.

        Args:
            window: its rows.
            only: names of the shards to write, where the others are there already.

        Raises:
            UsageError: the window before could not be written.
        """
        self._wait()
        marked = window.marked(self._sinks)
        counted = (marked, self._dtype, self._heldout)
        statistics = self._counting.submit(by_group, *counted) if only is None else None
        self._pending = self._writing.submit(self._write, window, marked, statistics, only)

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(
        self,
        window: WindowRows,
        marked: Mapping[str, Rows],
        statistics: Future[dict[Group, Moments]] | None,
        only: Collection[str] | None,
    ) -> None:
        shards = [
            shard
            for name, rows in marked.items()
            for shard in self._shards(window, name, rows)
            if only is None or self._name(shard) in only
        ]
        done = write_shards(shards, self._dtype)
        entries = {self._name(shard): self._entry(shard, entry) for shard, entry in zip(shards, done, strict=True)}
        if statistics is None:
            return
        path = layout.window_statistics(self._folder, window.number)
        write_statistics(path, statistics.result())
        entries[path.relative_to(self._folder).as_posix()] = file_entry(path)._asdict()
        receipt = {
            "window": window.number,
            "n_rows": window.n_rows,
            "n_sequences": window.n_sequences,
            "n_padding": window.n_padding,
            "sink_norms": dict(self._sinks),
            "files": entries,
        }
        write_json(layout.receipt(self._folder, window.number), receipt)

    def _shards(self, window: WindowRows, hook_point: str, rows: Rows) -> Iterator[ShardToWrite]:
        for part, start in enumerate(range(0, len(rows), self._shard_rows)):
            path = layout.shard(self._folder, hook_point, window.number, part)
            some = rows.cut(start, start + self._shard_rows)
            shape = "x".join(map(str, window.shapes[hook_point]))
            yield ShardToWrite(path, some, {"hook_point": hook_point, "shape": shape, **self._metadata})

    def _name(self, shard: ShardToWrite) -> str:
        return shard.path.relative_to(self._folder).as_posix()

    def _entry(self, shard: ShardToWrite, entry: FileEntry) -> Entry:
        n_rows, d_in = shard.rows.vectors.shape
        about = {"hook_point": shard.metadata["hook_point"], "n_rows": n_rows, "d_in": d_in, "dtype": self._dtype}
        return {**entry._asdict(), **about}
