"""Formats: one reader for each suffix, from the bytes of an open file to its documents, never all of it in memory."""

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from activations.documents import Document, TextConfig
from activations.rows import Row, check_columns, decoded, document, first_line, wanted_columns
from store.errors import UsageError

BOM = b"\xef\xbb\xbf"
MAX_FIELD_CHARS = 1 << 24
"""A longer field of a table is taken for a quote that was left open: it would end with the file."""
PARQUET_ROWS = 64
"""Rows of Parquet in memory."""
PARQUET_BUFFER_BYTES = 1 << 20
PARQUET_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True)
class OpenFile:
    """A file, open, without its compression."""

    stream: io.BufferedReader
    path: str
    """What errors call it."""
    name: str
    """What its documents say they are from."""
    stem: str


Reader = Callable[[OpenFile, TextConfig], Iterator[Document]]


def _whole(file: OpenFile, cfg: TextConfig) -> Iterator[Document]:
    data = file.stream.read()
    start = len(BOM) if data.startswith(BOM) else 0
    text = decoded(data[start:], lambda byte: f"{file.path} is not UTF-8 at byte {start + byte}", cfg)
    del data
    yield Document(file.name, file.stem, text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text)


def _each_line(file: OpenFile, cfg: TextConfig) -> Iterator[Document]:
    for number, line in _lines(file, cfg):
        yield Document(file.name, f"line {number}", line.rstrip("\r\n"))


def _each_paragraph(file: OpenFile, cfg: TextConfig) -> Iterator[Document]:
    first, waiting = 1, []
    for number, line in _lines(file, cfg):
        if not _is_blank(line):
            waiting.append(line.rstrip("\r\n"))
            continue
        if waiting:
            yield Document(file.name, f"line {first}", "\n".join(waiting))
        first, waiting = number + 1, []
    yield Document(file.name, f"line {first}", "\n".join(waiting))


UNITS: dict[str, Reader] = {"file": _whole, "line": _each_line, "paragraph": _each_paragraph}
"""What is one document in a text without structure."""


def _read_text(file: OpenFile, cfg: TextConfig) -> Iterator[Document]:
    return UNITS[cfg.documents](file, cfg)


def _read_jsonl(file: OpenFile, cfg: TextConfig) -> Iterator[Document]:
    for number, line in _lines(file, cfg):
        if not _is_blank(line):
            where = f"{file.path}:{number}"
            row = Row(where, f"line {number}", _json(line, where))
            # One line may be most of the memory: it goes before its document is used.
            del line
            yield document(row, file.name, cfg)


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON ({first_line(error)}): mend the line or leave it out") from error


def _read_table(file: OpenFile, cfg: TextConfig, delimiter: str, header_lines: int) -> Iterator[Document]:
    """Rows of a CSV file or its kin; the first header line names the columns, others are passed over."""
    rows = _table_rows(file, cfg, delimiter)
    _, names = next(rows, (0, []))
    if not names:
        return
    check_columns(f"{file.path}:1", names, cfg)
    for _ in range(header_lines - 1):
        next(rows, None)
    for number, values in rows:
        where = f"{file.path}:{number}"
        if len(values) != len(names):
            raise UsageError(f"{where} has {len(values)} fields, the header {len(names)}: put texts in double quotes")
        yield document(Row(where, f"line {number}", dict(zip(names, values, strict=True))), file.name, cfg)


def _table_rows(file: OpenFile, cfg: TextConfig, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line where it begins, blank lines left out."""
    csv.field_size_limit(MAX_FIELD_CHARS)
    rows = csv.reader((line for _, line in _lines(file, cfg)), delimiter=delimiter, strict=True)
    while True:
        number = rows.line_num + 1
        try:
            values = next(rows, None)
        except csv.Error as error:
            raise UsageError(f"{file.path}:{number} is not a row ({error}): close or double its quotes") from error
        if values is None:
            return
        if values:
            yield number, values


def _read_parquet(file: OpenFile, cfg: TextConfig) -> Iterator[Document]:
    with tempfile.TemporaryFile() as scratch:
        stream = file.stream
        if not stream.seekable():
            shutil.copyfileobj(stream, scratch, PARQUET_BUFFER_BYTES)
            stream = scratch
        for number, values in enumerate(_parquet_rows(stream, file.path, cfg)):
            row = Row(f"{file.path} row {number}", f"row {number}", values)
            yield document(row, file.name, cfg)


def _parquet_rows(stream: Any, path: str, cfg: TextConfig) -> Iterator[dict[str, Any]]:
    """Values by column, of the columns that are wanted."""
    try:
        parquet = pq.ParquetFile(stream, buffer_size=PARQUET_BUFFER_BYTES, pre_buffer=False)
        names = parquet.schema_arrow.names
        check_columns(path, names, cfg)
        columns = [name for name in wanted_columns(cfg) if name in names]
        for batch in parquet.iter_batches(PARQUET_ROWS, columns=columns):
            values = {name: _values(batch.column(name)) for name in columns}
            yield from (dict(zip(columns, row, strict=True)) for row in zip(*values.values(), strict=True))
    except PARQUET_ERRORS as error:
        raise UsageError(f"{path} cannot be read as Parquet ({first_line(error)}): write it anew") from error


def _values(column: pa.Array) -> list[Any]:
    """A column as Python values; strings as bytes, because Parquet does not check that they are UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    return column.to_pylist()


def _is_blank(line: str) -> bool:
    return not line or line.isspace()


def _lines(file: OpenFile, cfg: TextConfig) -> Iterator[tuple[int, str]]:
    """Each line with its number, its end still there; only a line feed ends one."""
    number, start = 0, 0
    for data in file.stream:
        number, begin = number + 1, start
        start += len(data)
        if begin == 0 and data.startswith(BOM):
            data, begin = data[len(BOM) :], len(BOM)
        line = decoded(data, lambda byte, begin=begin: f"{file.path} is not UTF-8 at byte {begin + byte}", cfg)
        del data
        yield number, line


READERS: dict[str, Reader] = {
    ".csv": partial(_read_table, delimiter=",", header_lines=1),
    ".jsonl": _read_jsonl,
    ".md": _read_text,
    ".parquet": _read_parquet,
    ".tab": partial(_read_table, delimiter="\t", header_lines=3),
    ".tsv": partial(_read_table, delimiter="\t", header_lines=1),
    ".txt": _read_text,
}
"""By suffix. `.tab` are Orange's tables: names, types and roles of the columns in three lines."""
