"""A person's own labelled texts: .csv, .tsv or .jsonl with `text` and `label`, and perhaps `group` and `split`."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from store.errors import UsageError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
NEEDED = ("text", "label")
SPLITS = ("train", "test")
MAX_FIELD_CHARS = 1 << 24


class Row(NamedTuple):
    """One text of a file."""

    text: str
    label: str
    group: str
    """Empty where the file does not say."""
    split: str
    """`train`, `test`, or empty where the file does not say."""


def read_rows(path: Path) -> Iterator[Row]:
    """The file's rows, in order.

    Raises:
        UsageError: another suffix, a line that cannot be read, a missing column, or a split that is neither.
    """
    if path.suffix not in (*DELIMITERS, ".jsonl"):
        raise UsageError(f"{path} is no .csv, .tsv or .jsonl: save the labelled texts as one of these")
    try:
        rows = _json_rows(path) if path.suffix == ".jsonl" else _table_rows(path)
        for where, values in rows:
            yield _row(where, values)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8") from error


def _row(where: str, values: dict[str, object]) -> Row:
    missing = [name for name in NEEDED if values.get(name) is None]
    if missing:
        raise UsageError(f"{where} has no '{missing[0]}': labelled texts need the columns {' and '.join(NEEDED)}")
    text, label, group, split = (_text(values.get(name)) for name in (*NEEDED, "group", "split"))
    if not label.strip():
        raise UsageError(f"{where} has an empty label: give it one, or leave the row out")
    if split and split not in SPLITS:
        raise UsageError(f"{where} has the split '{split}': it is {' or '.join(SPLITS)}, or leave the column out")
    return Row(text, label, group, split)


def _text(value: object) -> str:
    """Empty where the file does not say; 0 and false are said."""
    return "" if value is None else str(value)


def _table_rows(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    csv.field_size_limit(MAX_FIELD_CHARS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter=DELIMITERS[path.suffix], strict=True)
        try:
            for values in rows:
                yield f"{path}:{rows.line_num}", dict(values)
        except csv.Error as error:
            raise UsageError(f"{path}:{rows.line_num} is not a row ({error}): close or double its quotes") from error


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                raise UsageError(f"{path}:{number} is not JSON ({error}): mend the line or leave it out") from error
            if not isinstance(values, dict):
                raise UsageError(f"{path}:{number} is no object: each line is one with text and label")
            yield f"{path}:{number}", values
