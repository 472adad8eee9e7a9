"""SQL over the tables of one run that stand in files of its own: matchings and alignments."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

import duckdb
import pandas as pd

from store.answers import writing
from store.confined import Parameters, asked
from store.errors import UsageError
from store.run import Run, read_run

T = TypeVar("T")


class AskedRun(ABC):
    """A run whose tables answer SELECT."""

    kind: ClassVar[str]
    """Of the run."""
    command: ClassVar[str]
    """That makes it."""

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

    @abstractmethod
    def _open(self) -> duckdb.DuckDBPyConnection:
        """A connection that sees the tables and cannot write."""

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
