"""Answers to queries as files: CSV, JSON lines or Parquet, written some rows at a time, whole or not at all."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from store.files import whole_file

ROWS = 65_536
"""In memory at a time."""
WHOLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}
"""pandas' types that have a missing value of their own."""
Writer = Callable[[pa.RecordBatch], object]


def writing(file: Path, form: str) -> Callable[[duckdb.DuckDBPyRelation], int]:
    """What writes a relation's rows as `file` and returns how many there were.

    Args:
        file: to write; whatever is there is replaced when the new one is whole.
        form: a name in `WRITERS`.
    """

    def write(rows: duckdb.DuckDBPyRelation) -> int:
        # The name it has since DuckDB 2, and the one before.
        fetch = rows.to_arrow_reader if hasattr(duckdb.DuckDBPyRelation, "to_arrow_reader") else rows.fetch_arrow_reader
        reader, n = fetch(ROWS), 0
        with whole_file(file) as scratch, WRITERS[form](scratch, reader.schema) as add:
            for batch in reader:
                add(batch)
                n += len(batch)
        return n

    return write


def _frame(batch: pa.RecordBatch, *, flat: bool) -> pd.DataFrame:
    """A batch for pandas' writers: whole numbers stay whole where some are missing, and lists are JSON if `flat`."""
    frame = batch.to_pandas(types_mapper=WHOLE.get)
    for field in batch.schema:
        if flat and pa.types.is_nested(field.type):
            values = batch.column(field.name).to_pylist()
            frame[field.name] = [None if value is None else json.dumps(value, default=str) for value in values]
    return frame


@contextmanager
def _csv(file: Path, schema: pa.Schema) -> Iterator[Writer]:
    with file.open("w", encoding="utf-8", newline="") as handle:
        _frame(pa.RecordBatch.from_pylist([], schema), flat=True).to_csv(handle, index=False)
        yield lambda batch: _frame(batch, flat=True).to_csv(handle, index=False, header=False)


@contextmanager
def _json(file: Path, schema: pa.Schema) -> Iterator[Writer]:
    def add(batch: pa.RecordBatch) -> None:
        if len(batch):
            _frame(batch, flat=False).to_json(handle, orient="records", lines=True, force_ascii=False)

    with file.open("w", encoding="utf-8") as handle:
        yield add


@contextmanager
def _parquet(file: Path, schema: pa.Schema) -> Iterator[Writer]:
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield writer.write_batch


WRITERS = {"csv": _csv, "json": _json, "parquet": _parquet}
"""By format: opens a file for the batches of a schema."""
