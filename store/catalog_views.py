"""The catalogue's tables and views: what manifests and receipts say, and the files that a query then reads."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from store import layout
from store.confined import quoted
from store.errors import UsageError
from store.figures import CURVES_FILE, FIGURES_FILE, SAE_ARM
from store.files import read_json
from store.run import Run, list_runs
from store.shards import ROW_COLUMNS
from store.tables import CURVES, FIGURES, HARVEST_SCHEMAS

log = logging.getLogger(__name__)
HARVEST = "activations"
"""The kind of run that has shards."""
MEASURED = ("evaluation", "comparison")
"""The kinds that have figures and curves."""
TYPES = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.list_(pa.float64()): "DOUBLE[]"}
"""What DuckDB calls the types of their columns."""
MEASURED_TABLES = {"figures": (FIGURES_FILE, FIGURES), "curves": (CURVES_FILE, CURVES)}
OF_PART = {
    "run": "split_part(filename, '/', -2)",
    "part": "config->>'part'",
    "sae": "inputs->>'sae'",
    "activations": "inputs->>'activations'",
}
"""What figures and curves have beside their own columns. A comparison is of several dictionaries, and names none."""
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
# The schema is told, not read: opening reads none of the files, and a damaged one keeps nobody from the others.
MEASURED_VIEW = """
CREATE VIEW {name} AS
SELECT {of_part}, {columns}
FROM read_parquet({files}, filename = true, schema = MAP {{{types}}})
JOIN runs ON runs.id = split_part(filename, '/', -2)
"""
# By arm first: a dictionary compared with itself has the same figure twice, and a map takes a key once.
COMPARED_VIEW = f"""
CREATE VIEW compared AS
WITH arms AS (
    SELECT run, part, sae, activations, metric, token_class, setting, arm, any_value(figures) AS own
    FROM figures GROUP BY ALL
), beside AS (
    SELECT run, part, sae, activations, metric, token_class, setting,
           any_value(own) FILTER (WHERE arm = '{SAE_ARM}') AS own,
           list((arm, own.value) ORDER BY arm) FILTER (WHERE arm <> '{SAE_ARM}') AS others
    FROM arms GROUP BY ALL
)
SELECT run, part, sae, activations, metric, token_class, setting,
       own.value AS value, own.low AS low, own.high AS high, own.n AS n, own.n_of AS n_of, own.note AS note,
       coalesce(map_from_entries(others), MAP {{}}) AS controls
FROM beside
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


def define(connection: duckdb.DuckDBPyConnection, root: Path) -> tuple[dict[str, ShardEntry], dict[str, Run]]:
    """Make the tables and views; returns the shards by path, and the run of every file that a view reads.

    Raises:
        UsageError: a file that a harvest needs is damaged or missing, or one of an evaluation is missing.
    """
    runs = [run for run in list_runs(root) if _in_place(run)]
    harvests = [run for run in runs if run.kind == HARVEST]
    shards = {shard.path: shard for run in harvests for shard in _shards_of(run)}
    harvested = {
        "documents": [path for run in harvests for path in layout.document_parts(run.folder)],
        "sequences": [path for run in harvests for path in layout.token_parts(run.folder)],
        "statistics": [path for run in harvests if (path := run.folder / layout.STATISTICS).exists()],
    }
    measured = {name: _files_called(file, runs) for name, (file, _) in MEASURED_TABLES.items()}
    _table(connection, "runs", pa.Table.from_pylist([_run_row(run) for run in runs], schema=RUNS))
    for column in ("config", "inputs", "results"):
        connection.execute(f"ALTER TABLE runs ALTER {column} TYPE JSON")
    _table(connection, "shards", pa.Table.from_pylist([asdict(shard) for shard in shards.values()], schema=SHARDS))
    by_id = {run.id: run for run in runs}
    paths = [path.as_posix() for some in (*harvested.values(), *measured.values()) for path in some]
    owner = {path: by_id[Path(path).relative_to(root).parts[1]] for path in (*paths, *shards)}
    try:
        for name, files in harvested.items():
            _harvest_view(connection, name, files)
        _rows_view(connection, list(shards))
        connection.execute(TOKENS_VIEW)
        for name, files in measured.items():
            _measured_view(connection, name, files)
        connection.execute(COMPARED_VIEW)
    except duckdb.Error as error:
        raise refusal(error, owner) from error
    return shards, owner


def _in_place(run: Run) -> bool:
    """Whether the run's folder bears its id, as views tell runs by their folders; with a warning where it does not."""
    if run.folder.name != run.id:
        log.warning("left out of the catalogue: %s is a copy of run %s under another name", run.folder, run.id)
    return run.folder.name == run.id


def _files_called(name: str, runs: Iterable[Run]) -> list[Path]:
    """Those that a finished evaluation says it wrote: a part that does not apply wrote none."""
    return [run.folder / name for run in runs if run.kind in MEASURED and name in run.manifest["files"]]


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
            raise damaged(path.as_posix(), run) from error
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


def _measured_view(connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[Path]) -> None:
    schema = MEASURED_TABLES[name][1]
    if not files:
        _empty(connection, name, pa.schema([*((column, pa.string()) for column in OF_PART), *schema]))
        return
    types = {column: TYPES[schema.field(column).type] for column in schema.names}
    connection.execute(
        MEASURED_VIEW.format(
            name=name,
            of_part=", ".join(f"{value} AS {column}" for column, value in OF_PART.items()),
            columns=", ".join(schema.names),
            files=_listed(path.as_posix() for path in files),
            types=", ".join(
                f"'{c}': {{name: '{c}', type: '{kind}', default_value: NULL}}" for c, kind in types.items()
            ),
        )
    )


def _empty(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> None:
    _table(connection, f"no_{name}", schema.empty_table())
    connection.execute(f"CREATE VIEW {name} AS SELECT * FROM no_{name}")


def _listed(paths: Iterable[str]) -> str:
    """A SQL list. A path that exists is taken as it is, whatever pattern characters it holds."""
    return f"[{', '.join(map(quoted, paths))}]"


def refusal(error: duckdb.Error, owner: Mapping[str, Run]) -> UsageError:
    """DuckDB's own words, or the file that is to blame where it names one of ours."""
    # DuckDB says the cause first and then draws where: a path in the drawing is only what was asked for.
    cause = str(error).splitlines()[0]
    named = [path for path in owner if path in cause]
    if named and isinstance(error, duckdb.IOException | duckdb.InvalidInputException):
        path = max(named, key=len)
        return damaged(path, owner[path])
    # A page that makes no sense is an error of no kind, and names no file.
    hint = ". Some file may be damaged: `monosem verify RUN` names it" if type(error) is duckdb.Error else ""
    return UsageError(f"the query cannot be answered: {cause.rstrip('.')}{hint}")


def damaged(path: str, run: Run) -> UsageError:
    """The error for a file of a run that is not as it was written."""
    return UsageError(f"{path} is damaged or missing: {run.way_out}")
