"""A matching of two dictionaries: its tables as Parquet, and SQL over them beside both indexes' own tables."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from store.answers import writing
from store.confined import Parameters, asked, confine, quoted, spill_folder
from store.errors import UsageError
from store.feature_index import VIEWS
from store.files import whole_file
from store.index import CURRENT, part_path
from store.matching_tables import SCHEMAS
from store.run import Run, find_run, read_run

T = TypeVar("T")
SIDES = ("a", "b")


def write_table(
    folder: Path, table: str, columns: Mapping[str, Any], schemas: Mapping[str, pa.Schema] = SCHEMAS
) -> None:
    """Write one table of the run in `folder`; missing values are None or masked.

    Args:
        folder: of the run.
        table: a name in `schemas`.
        columns: arrays or lists by column name, all of one length.
        schemas: of all tables that such a run has.
    """
    schema = schemas[table]
    arrays = {name: pa.array(columns[name], type=schema.field(name).type, from_pandas=True) for name in schema.names}
    with whole_file(part_path(folder, table)) as scratch:
        pq.write_table(pa.table(arrays, schema=schema), scratch, compression="zstd")


def opened(folder: Path, tables: Iterable[str], command: str) -> duckdb.DuckDBPyConnection:
    """A connection with a view for each table of the run in `folder`, not yet confined.

    Raises:
        UsageError: one is missing or damaged; it names the command that makes them.
    """
    connection = duckdb.connect()
    for table in tables:
        path = part_path(folder.resolve(), table)
        try:
            connection.execute(f"CREATE VIEW {table} AS FROM read_parquet({quoted(path.as_posix())})")
        except duckdb.Error as error:
            raise UsageError(f"{path} is damaged or missing: delete {folder} and run `{command}` again") from error
    return connection


class Matching:
    """One finished matching; safe to share between threads.

    Tables are those of `store.matching_tables`, and of each index `a.features`, `a.latents`, …, `b.features`, … where
    it is still there, as they are when the matching is opened.
    """

    def __init__(self, folder: Path, timeout_s: float | None = None) -> None:
        """Open the matching in `folder`; a query that takes longer than `timeout_s` is stopped.

        Raises:
            UsageError: none is there, or a table is missing or damaged.
        """
        self.folder, self.timeout_s = folder, timeout_s
        if self.run.kind != "matching":
            raise UsageError(f"{folder} is a run of kind {self.run.kind}, not matching: name one of `monosem match`")
        self._connection = self._open()

    @cached_property
    def run(self) -> Run:
        """The run that made it."""
        return read_run(self.folder)

    def sql(self, query: str, parameters: Parameters = None) -> pd.DataFrame:
        """Rows of one SELECT.

        Raises:
            UsageError: DuckDB refuses the query, with its own words; or it took too long.
        """
        return self._run(query, parameters, duckdb.DuckDBPyRelation.df)

    def write(self, query: str, file: Path, form: str) -> int:
        """Write the rows of one SELECT as a file, as `FeatureIndex.write` does.

        Raises:
            UsageError: DuckDB refuses the query, it took too long, or the file cannot be written.
        """
        return self._run(query, None, writing(file, form))

    def _run(self, query: str, parameters: Parameters, fetch: Callable[[duckdb.DuckDBPyRelation], T]) -> T:
        return asked(self._connection.cursor(), [query], parameters, fetch, self.timeout_s)[0]

    def _open(self) -> duckdb.DuckDBPyConnection:
        connection = opened(self.folder, SCHEMAS, "monosem match")
        for side in SIDES:
            self._attach(connection, side)
        confine(connection, [self.folder.resolve()], spill_folder())
        return connection

    def _attach(self, connection: duckdb.DuckDBPyConnection, side: str) -> None:
        """Show the tables of an index under the name of its side; a matching can be asked without them."""
        try:
            folder = find_run(self.run.root, self.run.inputs[side], "index").folder
            file = folder / (folder / CURRENT).read_text(encoding="utf-8").strip()
        except (UsageError, FileNotFoundError):
            return
        try:
            connection.execute(f"ATTACH {quoted(file.as_posix())} AS index_{side} (READ_ONLY)")
            connection.execute(f"CREATE SCHEMA {side}")
            for name in VIEWS:
                connection.execute(f"CREATE VIEW {side}.{name} AS FROM index_{side}.{name}")
        except duckdb.Error as error:
            raise UsageError(
                f"{file} cannot be opened ({str(error).splitlines()[0]}): run `monosem index` again"
            ) from error
