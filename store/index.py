"""The published feature index: one immutable DuckDB file per version and a pointer to the current one.

Batch jobs write Parquet parts; `publish` builds `index.<version>.duckdb` from them and then swaps `CURRENT`, so a
reader sees the old version or the new one, and never a lock: DuckDB refuses all readers while one process writes.
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from store import layout
from store.errors import UsageError
from store.files import remove_partials, whole_file
from store.run import Run, list_runs
from store.tables import FEATURES_VIEW, SCHEMAS

CURRENT = "CURRENT"
ANNOTATIONS = ("explanations", "scores")
"""Kinds of run that add rows to an index after it was built."""
PARTS = "parts"
KEPT_VERSIONS = 2
"""Published files kept: the current one and the one a reader may still be opening."""
# Sorting by these makes one latent's rows neighbours on disk, so a lookup reads one or two row groups.
SORTED_BY = {
    "latents": "latent",
    "events": "latent, seq, pos",
    "contexts": "latent, band, rank",
    "logits": "latent, side, rank",
    "sequences": "seq",
    "documents": "doc_id",
}


def write_part(folder: Path, table: str, columns: Mapping[str, Any]) -> None:
    """Write one table's part as Parquet.

    Args:
        folder: of the run that makes it.
        table: a name in `SCHEMAS`.
        columns: arrays or lists by column name, all of one length.
    """
    data = pa.table({name: columns[name] for name in SCHEMAS[table].names}, schema=SCHEMAS[table])
    with whole_file(folder / PARTS / f"{table}.parquet") as scratch:
        pq.write_table(data, scratch, compression="zstd")


def publish(index: Run, activations: Run) -> None:
    """Bring the published version up to the index's parts and every finished explanation and score of it.

    Does nothing where the current version already holds them, so it may be called after every job, and again after a
    kill between a job's end and its publication.
    """
    with FileLock(index.folder.parent / f".{index.folder.name}.publish.lock"):
        annotations = [run for kind in ANNOTATIONS for run in list_runs(index.root, kind)]
        annotations = [run for run in annotations if run.inputs.get("index") == index.id]
        if _published(index.folder) == {index.id, *(run.id for run in annotations)}:
            return
        remove_partials(index.folder)
        versions = sorted(index.folder.glob("index.*.duckdb"), key=_version)
        target = index.folder / f"index.{_version(versions[-1]) + 1 if versions else 1}.duckdb"
        with whole_file(target) as scratch:
            _build(scratch, _parts(index, activations, annotations), [index, *annotations])
        with whole_file(index.folder / CURRENT) as scratch:
            scratch.write_text(target.name, encoding="utf-8")
        for old in versions[: -KEPT_VERSIONS + 1]:
            old.unlink(missing_ok=True)


def _published(folder: Path) -> set[str]:
    """Ids of the runs in the current version; none where nothing readable is published."""
    try:
        with _connect(folder / (folder / CURRENT).read_text(encoding="utf-8").strip()) as db:
            return {row[0] for row in db.execute("SELECT id FROM runs").fetchall()}
    except (FileNotFoundError, duckdb.Error):
        return set()


def _version(path: Path) -> int:
    return int(path.suffixes[-2].removeprefix("."))


def _parts(index: Run, activations: Run, annotations: Sequence[Run]) -> dict[str, list[Path]]:
    """The Parquet files of each table."""
    parts = {path.stem: [path] for path in sorted((index.folder / PARTS).glob("*.parquet"))}
    for run in annotations:
        parts.setdefault(run.kind, []).append(run.folder / PARTS / f"{run.kind}.parquet")
    parts["documents"] = layout.document_parts(activations.folder)
    parts["sequences"] = layout.token_parts(activations.folder)
    return parts


def _build(file: Path, parts: Mapping[str, Sequence[Path]], runs: Sequence[Run]) -> None:
    with duckdb.connect(str(file)) as connection:
        for name, schema in SCHEMAS.items():
            files = [str(path) for path in parts.get(name, [])]
            order = f" ORDER BY {SORTED_BY[name]}" if name in SORTED_BY else ""
            if files:
                columns = ", ".join(schema.names)
                query = f"CREATE TABLE {name} AS SELECT {columns} FROM read_parquet(?){order}"
                connection.execute(query, [files])
            else:
                connection.register("empty", schema.empty_table())
                connection.execute(f"CREATE TABLE {name} AS SELECT * FROM empty")
                connection.unregister("empty")
        connection.execute("CREATE TABLE runs (id VARCHAR, kind VARCHAR, finished_at VARCHAR)")
        connection.executemany(
            "INSERT INTO runs VALUES (?, ?, ?)", [[run.id, run.kind, run.manifest["finished_at"]] for run in runs]
        )
        connection.execute(FEATURES_VIEW)


def _connect(file: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection. Every one has the same settings: DuckDB refuses others for a file already open.

    No file or network access from a query: an index answers questions about itself only.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
    }
    return duckdb.connect(str(file), read_only=True, config=config)


class FeatureIndex:
    """Reads the current version of a published index; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        """Open the index in `folder`.

        Raises:
            UsageError: nothing is published there.
        """
        self.folder = folder
        self._lock = threading.Lock()
        self._version = self.version()
        self._connection = self._open(self._version)

    def version(self) -> str:
        """Name of the file now published: changes whenever there is something new to read."""
        pointer = self.folder / CURRENT
        if not pointer.exists():
            raise UsageError(f"{self.folder} has no published index: run `monosem index` again")
        return pointer.read_text(encoding="utf-8").strip()

    def sql(self, query: str, parameters: Sequence[Any] | None = None) -> pd.DataFrame:
        """Rows of a read-only query on the newest version, as a data frame.

        Raises:
            UsageError: DuckDB refuses the query; its own message is passed on.
        """
        try:
            return self._cursor().execute(query, parameters).df()
        except duckdb.Error as error:
            # DuckDB says the cause first and then draws where: the cause is what fits one line.
            raise UsageError(f"the query cannot be answered: {str(error).splitlines()[0]}") from error

    def arrow(self, query: str, parameters: Sequence[Any] | None = None) -> pa.Table:
        """Rows of a read-only query as an Arrow table: list columns stay lists and missing values stay missing."""
        return self._cursor().sql(query, params=parameters).to_arrow_table()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor of its own for every call: one connection must not be used by two threads at once."""
        with self._lock:
            if (version := self.version()) != self._version:
                self._connection.close()
                self._connection, self._version = self._open(version), version
            return self._connection.cursor()

    def _open(self, version: str) -> duckdb.DuckDBPyConnection:
        try:
            return _connect(self.folder / version)
        except duckdb.Error as error:
            raise UsageError(
                f"{self.folder / version} cannot be opened ({error}): run `monosem index` again"
            ) from error
