"""A matching of two dictionaries: its tables as Parquet, and SQL over them beside both indexes' own tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from store.asked_run import AskedRun
from store.confined import quoted
from store.errors import UsageError
from store.feature_index import VIEWS
from store.files import whole_file
from store.index import CURRENT, part_path
from store.matching_tables import SCHEMAS
from store.run import find_run

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


class Matching(AskedRun):
    """One finished matching; safe to share between threads.

    Tables are those of `store.matching_tables`, and of each index `a.features`, `a.latents`, …, `b.features`, … where
    it is still there, as they are when the matching is opened.
    """

    kind = "matching"
    command = "monosem match"
    tables = SCHEMAS

    def _beside(self, connection: duckdb.DuckDBPyConnection) -> None:
        for side in SIDES:
            self._attach(connection, side)

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
