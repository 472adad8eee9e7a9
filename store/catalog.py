"""The catalogue: every run, shard, document, token, stored vector and measured figure under a root, as DuckDB views.

It is built from manifests and receipts whenever it is opened: it cannot go stale, and opening it reads one shard's
schema, however many there are. A vector is joined to its text by `run, doc_id` or `run, seq, pos`. `figures` has what
evaluations measured, a row each; `compared` has the same with every control beside the dictionary.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from store.answers import writing
from store.catalog_views import ShardEntry, damaged, define, refusal
from store.confined import Parameters, answer, confine, spill_folder
from store.errors import UsageError
from store.files import whole_file
from store.run import Run
from store.shards import Shard, float_rows

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
FILE = "catalog.duckdb"


class Vectors(NamedTuple):
    """Vectors and the rows of the query that named them."""

    x: "torch.Tensor"
    """`[n, d_in]` float32, in the query's order."""
    table: pa.Table
    """The query's rows: `x[i]` belongs to row i."""


class Catalog:
    """SQL over all finished runs under a root; safe to share between threads.

    Tables `runs shards`; views `documents sequences tokens rows statistics figures curves compared`, each with the
    `run` it is of.
    """

    def __init__(self, root: Path, timeout_s: float | None = None) -> None:
        """Read the manifests and receipts under `root`; a query that takes longer than `timeout_s` is stopped.

        Raises:
            UsageError: there is no such folder, or a file of a run is damaged or missing.
        """
        if not root.is_dir():
            raise UsageError(f"{root} is no folder of runs: make a run first, or name its folder with --root")
        self.root, self.timeout_s = root.resolve(), timeout_s
        self._lock = threading.Lock()
        self._connection = duckdb.connect()
        self._shards, self._owner = define(self._connection, self.root)
        confine(self._connection, [self.root], spill_folder())

    def sql(self, query: str, parameters: Parameters = None) -> pd.DataFrame:
        """Rows of one SELECT as a data frame.

        Raises:
            UsageError: DuckDB refuses the query, or a file it needs is damaged.
        """
        return self._run(query, parameters, duckdb.DuckDBPyRelation.df)

    def arrow(self, query: str, parameters: Parameters = None) -> pa.Table:
        """Rows of one SELECT as an Arrow table: list columns stay lists and missing values stay missing.

        Raises:
            UsageError: DuckDB refuses the query, or a file it needs is damaged.
        """
        return self._run(query, parameters, duckdb.DuckDBPyRelation.to_arrow_table)

    def write(self, query: str, file: Path, form: str) -> int:
        """Write the rows of one SELECT as a file, as `FeatureIndex.write` does.

        Raises:
            UsageError: DuckDB refuses the query, it took too long, or the file cannot be written.
        """
        return self._run(query, None, writing(file, form))

    def vectors(self, query: str, parameters: Parameters = None) -> Vectors:
        """The vectors at the query's `path` and `row`, which `SELECT * FROM rows WHERE …` has.

        Raises:
            UsageError: no rows, no such columns, a place that is no stored vector, vectors of several widths, or a
                damaged shard.
        """
        import torch

        table = self.arrow(query, parameters)
        paths, path_of, row_of = _places(table)
        shards = [self._entry(path) for path in paths]
        x = torch.empty(len(table), _width(shards))
        # Ascending rows of one shard after another: a memory map reads forwards much faster than at random.
        order = np.lexsort((row_of, path_of))
        bounds = np.searchsorted(path_of[order], np.arange(len(paths) + 1))
        for shard, start, stop in zip(shards, bounds[:-1], bounds[1:], strict=True):
            here = order[start:stop]
            x[torch.from_numpy(here)] = _gather(shard, self._owner[shard.path], row_of[here])
        return Vectors(x, table)

    def _run(self, query: str, parameters: Parameters, fetch: Callable[[duckdb.DuckDBPyRelation], T]) -> T:
        with self._lock:
            cursor = self._connection.cursor()
        try:
            return answer(cursor, query, parameters, fetch, self.timeout_s)
        except duckdb.Error as error:
            raise refusal(error, self._owner) from error
        finally:
            cursor.close()

    def _entry(self, path: str) -> ShardEntry:
        if path not in self._shards:
            raise UsageError(
                f"{path} is no shard of a finished run in {self.root}: take `path` and `row` from the view `rows`"
            )
        return self._shards[path]


def write_catalog(root: Path, file: Path | None = None) -> Path:
    """Write the same tables and views, over absolute paths, as a DuckDB file that any client opens.

    Args:
        root: of the runs.
        file: by default `catalog.duckdb` in `root`; whatever is there is replaced.

    Raises:
        UsageError: a file of a run is damaged or missing, or `file` cannot be written.
    """
    target = file or root / FILE
    with whole_file(target) as scratch, tempfile.TemporaryDirectory(prefix="monosem-") as folder:
        # DuckDB cannot write a database under a path with a question mark, so it writes where there is none.
        with duckdb.connect(f"{folder}/{FILE}") as connection:
            define(connection, root.resolve())
        shutil.copyfile(f"{folder}/{FILE}", scratch)
    return target


def _places(table: pa.Table) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The distinct paths, and of every row of the table which of them and which row there.

    Raises:
        UsageError: there are no rows, or they are not places.
    """
    missing = {"path", "row"} - set(table.column_names)
    if missing:
        raise UsageError(
            f"the query gives no column {' or '.join(sorted(missing))}, which say where a vector is: "
            "SELECT path, row FROM rows"
        )
    if not len(table):
        raise UsageError("the query gives no rows, so there is no vector to read: ask with other conditions")
    path, row = table.column("path").combine_chunks(), table.column("row").combine_chunks()
    if not pa.types.is_integer(row.type) or not pa.types.is_string(path.type) or path.null_count or row.null_count:
        raise UsageError(
            f"path is {path.type} and row is {row.type}, or some are missing: take both as they are in the view rows"
        )
    encoded = path.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(), row.cast(pa.int64()).to_numpy()


def _width(shards: Sequence[ShardEntry]) -> int:
    """The width that all of them have.

    Raises:
        UsageError: they have several.
    """
    found = {shard.d_in: f"{shard.d_in} ({shard.hook_point} of run {shard.run})" for shard in shards}
    if len(found) > 1:
        raise UsageError(
            f"the query mixes vectors of widths {', '.join(found.values())}: ask for one hook point with "
            "WHERE hook_point = …"
        )
    return shards[0].d_in


def _gather(entry: ShardEntry, run: Run, rows: np.ndarray) -> "torch.Tensor":
    """`[n, d_in]` float32 at ascending `rows` of one shard."""
    outside = rows[(rows < 0) | (rows >= entry.n_rows)]
    if len(outside):
        raise UsageError(f"{entry.path} has no row {outside[0]}: choose 0 to {entry.n_rows - 1}")
    try:
        shard = Shard(Path(entry.path))
    except UsageError as error:
        raise damaged(entry.path, run) from error
    if (shard.n_rows, shard.d_in, shard.dtype) != (entry.n_rows, entry.d_in, entry.dtype):
        raise damaged(entry.path, run)
    return float_rows(shard.vectors, entry.dtype, rows)
