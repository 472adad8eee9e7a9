"""SQL over the tables of one run that stand in files of its own: matchings and alignments."""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

import duckdb
import pandas as pd

from store.answers import writing
from store.confined import Parameters, asked, confine, quoted, spill_folder
from store.errors import UsageError
from store.index import part_path
from store.run import Run, read_run

T = TypeVar("T")


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


class AskedRun:
    """A run whose tables answer SELECT."""

    kind: ClassVar[str]
    """Of the run."""
    command: ClassVar[str]
    """That makes it."""
    tables: ClassVar[Iterable[str]]
    """Names of its own."""

    def __init__(self, folder: Path, timeout_s: float | None = None) -> None:
        """Open the run in `folder`; a query that takes longer than `timeout_s` is stopped.

        Raises:
            UsageError: none is there, or a table is missing or damaged.
        """
        self.folder, self.timeout_s = folder, timeout_s
        if self.run.kind != self.kind:
            raise UsageError(
                f"{folder} is a run of kind {self.run.kind}, not {self.kind}: name one of `{self.command}`"
            )
        self._connection = self._open()

    def _open(self) -> duckdb.DuckDBPyConnection:
        """A connection that sees the tables and cannot write."""
        connection = opened(self.folder, self.tables, self.command)
        self._beside(connection)
        confine(connection, [self.folder.resolve()], spill_folder())
        return connection

    def _beside(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Show tables of other runs too, before it is confined; by default none."""

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
