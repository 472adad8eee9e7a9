"""The catalogue: every run, shard, document, token and stored vector under a root, as DuckDB views over the files.

It is built from manifests and receipts whenever it is opened: it cannot go stale, and opening it reads one shard's
schema, however many there are. A vector is joined to its text by `run, doc_id` or `run, seq, pos`.
"""

import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from store import layout
from store.errors import UsageError
from store.files import read_json, whole_file
from store.run import Run, list_runs
from store.shards import ROW_COLUMNS, Shard, float_rows
from store.tables import HARVEST_SCHEMAS

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
T = TypeVar("T")
HARVEST = "activations"
"""The kind of run that has shards."""
FILE = "catalog.duckdb"
RUNS = pa.schema(
    {
        "id": pa.string(),
        "kind": pa.string(),
        "folder": pa.string(),
        "finished_at": pa.string(),  # ISO 8601, UTC
        "config": pa.string(),  # JSON, as are the next two
        "inputs": pa.string(),
        "results": pa.string(),
    }
)
SHARDS = pa.schema(
    {
        "run": pa.string(),
        "hook_point": pa.string(),
        "shard": pa.string(),  # HOOK_POINT/FILE
        "path": pa.string(),  # absolute
        "window": pa.int32(),
        "n_rows": pa.int64(),
        "d_in": pa.int32(),
        "dtype": pa.string(),
        "n_bytes": pa.int64(),
        "sha256": pa.string(),
    }
)
# Told from a file's path rather than by a join: DuckDB then opens only the files that a condition on it leaves.
RUN_OF = {"documents": -3, "sequences": -3, "statistics": -2}
"""Which part of the path, split at `/`, names the run."""
ROWS_VIEW = """
CREATE VIEW rows AS
SELECT split_part(filename, '/', -3) AS run, split_part(filename, '/', -2) AS hook_point,
       split_part(filename, '/', -2) || '/' || split_part(filename, '/', -1) AS shard,
       filename AS path, file_row_number AS row, {columns}
FROM read_parquet({files}, filename = true, file_row_number = true)
"""
TOKENS_VIEW = """
CREATE VIEW tokens AS
SELECT run, seq, unnest(range(len(token_ids)))::INTEGER AS pos, unnest(token_ids) AS token_id,
       unnest(doc_ids) AS doc_id, unnest(text_class) AS text_class,
       unnest(char_start) AS char_start, unnest(char_end) AS char_end
FROM sequences
"""


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """What a receipt says of one shard: a row of `shards`."""

    run: str
    hook_point: str
    shard: str
    path: str
    window: int
    n_rows: int
    d_in: int
    dtype: str
    n_bytes: int
    sha256: str


class Vectors(NamedTuple):
    """Vectors and the rows of the query that named them."""

    x: "torch.Tensor"
    """`[n, d_in]` float32, in the query's order."""
    table: pa.Table
    """The query's rows: `x[i]` belongs to row i."""


class Catalog:
    """SQL over all finished runs under a root; safe to share between threads.

    Tables `runs shards`; views `documents sequences tokens rows statistics`, each with the `run` it is of.
    """

    def __init__(self, root: Path) -> None:
        """Read the manifests and receipts under `root`.

        Raises:
            UsageError: there is no such folder, or a file that a harvest needs is damaged or missing.
        """
        if not root.is_dir():
            raise UsageError(f"{root} is no folder of runs: make a run first, or name its folder with --root")
        self.root = root.resolve()
        self._lock = threading.Lock()
        self._spill = tempfile.TemporaryDirectory(prefix="monosem-")
        self._connection = duckdb.connect()
        self._shards, self._owner = _define(self._connection, self.root)
        _confine(self._connection, self.root, Path(self._spill.name))

    def sql(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Rows of one SELECT as a data frame.

        Raises:
            UsageError: DuckDB refuses the query, or a file it needs is damaged.
        """
        return self._run(query, parameters, duckdb.DuckDBPyRelation.df)

    def arrow(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> pa.Table:
        """Rows of one SELECT as an Arrow table: list columns stay lists and missing values stay missing.

        Raises:
            UsageError: DuckDB refuses the query, or a file it needs is damaged.
        """
        return self._run(query, parameters, duckdb.DuckDBPyRelation.to_arrow_table)

    def vectors(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> Vectors:
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
            x[torch.from_numpy(here)] = _gather(shard, row_of[here])
        return Vectors(x, table)

    def _run(self, query: str, parameters: Any, fetch: Callable[[duckdb.DuckDBPyRelation], T]) -> T:
        with self._lock:
            cursor = self._connection.cursor()
        try:
            statement = _one_select(cursor, query)
            # A SELECT may hold an INSERT since DuckDB 2: the transaction is what keeps it from writing.
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            return fetch(cursor.sql(statement, params=parameters))
        except duckdb.Error as error:
            raise _refusal(error, self._owner) from error
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
        UsageError: a file that a harvest needs is damaged or missing, or `file` cannot be written.
    """
    target = file or root / FILE
    with whole_file(target) as scratch, tempfile.TemporaryDirectory(prefix="monosem-") as folder:
        # DuckDB cannot write a database under a path with a question mark, so it writes where there is none.
        with duckdb.connect(f"{folder}/{FILE}") as connection:
            _define(connection, root.resolve())
        shutil.copyfile(f"{folder}/{FILE}", scratch)
    return target


def _define(connection: duckdb.DuckDBPyConnection, root: Path) -> tuple[dict[str, ShardEntry], dict[str, str]]:
    """Make the tables and views; returns the shards by path, and the run of every file that a view reads."""
    runs = [run for run in list_runs(root) if _in_place(run)]
    harvests = [run for run in runs if run.kind == HARVEST]
    shards = {shard.path: shard for run in harvests for shard in _shards_of(run)}
    files: dict[str, list[Path]] = {
        "documents": [path for run in harvests for path in layout.document_parts(run.folder)],
        "sequences": [path for run in harvests for path in layout.token_parts(run.folder)],
        "statistics": [path for run in harvests if (path := run.folder / layout.STATISTICS).exists()],
    }
    owner = {path.as_posix(): path.relative_to(root).parts[1] for paths in files.values() for path in paths}
    owner |= {path: shard.run for path, shard in shards.items()}
    _table(connection, "runs", pa.Table.from_pylist([_run_row(run) for run in runs], schema=RUNS))
    for column in ("config", "inputs", "results"):
        connection.execute(f"ALTER TABLE runs ALTER {column} TYPE JSON")
    _table(connection, "shards", pa.Table.from_pylist([asdict(shard) for shard in shards.values()], schema=SHARDS))
    try:
        for name, paths in files.items():
            _harvest_view(connection, name, paths)
        _rows_view(connection, list(shards))
        connection.execute(TOKENS_VIEW)
    except duckdb.Error as error:
        raise _refusal(error, owner) from error
    return shards, owner


def _in_place(run: Run) -> bool:
    """Whether the run's folder bears its id, as views tell runs by their folders; with a warning where it does not."""
    if run.folder.name != run.id:
        log.warning("left out of the catalogue: %s is a copy of run %s under another name", run.folder, run.id)
    return run.folder.name == run.id


def _run_row(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "kind": run.kind,
        "folder": run.folder.as_posix(),
        "finished_at": run.manifest["finished_at"],
        **{name: json.dumps(getattr(run, name)) for name in ("config", "inputs", "results")},
    }


def _shards_of(run: Run) -> Iterable[ShardEntry]:
    for number, path in enumerate(layout.receipts(run.folder)):
        try:
            receipt = read_json(path)
        except UsageError as error:
            raise _damaged(path.as_posix(), run.id) from error
        for name, entry in receipt["files"].items():
            if "d_in" in entry:
                yield ShardEntry(
                    run=run.id,
                    shard=name,
                    path=(run.folder / name).as_posix(),
                    window=receipt.get("window", number),
                    **{key: entry[key] for key in ("hook_point", "n_rows", "d_in", "dtype", "n_bytes", "sha256")},
                )


def _table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("given", table)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
    connection.unregister("given")


def _harvest_view(connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[Path]) -> None:
    schema = HARVEST_SCHEMAS[name]
    if not files:
        _empty(connection, name, pa.schema([pa.field("run", pa.string()), *schema]))
        return
    connection.execute(
        f"CREATE VIEW {name} AS SELECT split_part(filename, '/', {RUN_OF[name]}) AS run, {', '.join(schema.names)} "
        f"FROM read_parquet({_listed(path.as_posix() for path in files)}, filename = true)"
    )


def _rows_view(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
    if files:
        connection.execute(ROWS_VIEW.format(columns=", ".join(ROW_COLUMNS), files=_listed(files)))
        return
    names = [pa.field(name, pa.string()) for name in ("run", "hook_point", "shard", "path")]
    columns = [pa.field(name, kind) for name, kind in ROW_COLUMNS.items()]
    _empty(connection, "rows", pa.schema([*names, pa.field("row", pa.int64()), *columns]))


def _empty(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> None:
    _table(connection, f"no_{name}", schema.empty_table())
    connection.execute(f"CREATE VIEW {name} AS SELECT * FROM no_{name}")


def _listed(paths: Iterable[str]) -> str:
    """A SQL list. A path that exists is taken as it is, whatever pattern characters it holds."""
    return f"[{', '.join(map(_quoted, paths))}]"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _confine(connection: duckdb.DuckDBPyConnection, root: Path, spill: Path) -> None:
    """No file outside `root`, no network, and no way back: the last two settings rule out changing the others."""
    for setting in (
        f"temp_directory = {_quoted(spill.as_posix())}",
        f"allowed_directories = [{_quoted(root.as_posix())}]",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")


def _one_select(cursor: duckdb.DuckDBPyConnection, query: str) -> duckdb.Statement:
    """The query's only statement: whatever is not a SELECT could write a file into the root.

    Raises:
        UsageError: it is something else, or there are several.
    """
    statements = cursor.extract_statements(query)
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        found = ", ".join(statement.type.name for statement in statements) or "nothing"
        raise UsageError(f"the query cannot be answered: the catalogue takes one SELECT, DESCRIBE or SHOW, not {found}")
    return statements[0]


def _refusal(error: duckdb.Error, owner: Mapping[str, str]) -> UsageError:
    """DuckDB's own words, or the file that is to blame where it names one of ours."""
    # DuckDB says the cause first and then draws where: a path in the drawing is only what was asked for.
    cause = str(error).splitlines()[0]
    named = [path for path in owner if path in cause]
    if named and isinstance(error, duckdb.IOException | duckdb.InvalidInputException):
        path = max(named, key=len)
        return _damaged(path, owner[path])
    # A page that makes no sense is an error of no kind, and names no file.
    hint = ". Some file may be damaged: `monosem verify RUN` names it" if type(error) is duckdb.Error else ""
    return UsageError(f"the query cannot be answered: {cause.rstrip('.')}{hint}")


def _damaged(path: str, run: str) -> UsageError:
    return UsageError(f"{path} is damaged or missing: mend its harvest with `monosem harvest --repair {run}`")


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


def _gather(entry: ShardEntry, rows: np.ndarray) -> "torch.Tensor":
    """`[n, d_in]` float32 at ascending `rows` of one shard."""
    outside = rows[(rows < 0) | (rows >= entry.n_rows)]
    if len(outside):
        raise UsageError(f"{entry.path} has no row {outside[0]}: choose 0 to {entry.n_rows - 1}")
    try:
        shard = Shard(Path(entry.path))
    except UsageError as error:
        raise _damaged(entry.path, entry.run) from error
    if (shard.n_rows, shard.d_in, shard.dtype) != (entry.n_rows, entry.d_in, entry.dtype):
        raise _damaged(entry.path, entry.run)
    return float_rows(shard.vectors, entry.dtype, rows)
