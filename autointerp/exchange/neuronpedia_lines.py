"""The JSON lines in which Neuronpedia exports explanations: which latent, which words, whose they are."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from store.errors import UsageError

LONGEST_LINE = 1 << 20
"""Bytes: an explanation with its embedding has some ten thousand."""
NAMES = ("*.jsonl", "*.jsonl.gz")


class Line(NamedTuple):
    """One explanation, and where it stands."""

    path: Path
    number: int
    place: tuple[str, str]
    """Model and dictionary."""
    kind: str
    latent: int
    text: str
    author: str

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.path} line {self.number}"

    @property
    def method(self) -> str:
        """Who wrote it, for the reader."""
        return f"Neuronpedia, {'/'.join(self.place)}: {self.author}"


def explanation_files(path: Path) -> list[Path]:
    """The file itself, or the files of explanations in a folder.

    Raises:
        UsageError: there are none.
    """
    if path.is_dir():
        found = sorted(file for name in NAMES for file in path.glob(name))
        if not found:
            raise UsageError(f"{path} has no {' or '.join(NAMES)}: name the folder of explanations, or one file")
        return found
    if not path.is_file():
        raise UsageError(f"{path} does not exist: check the path")
    return [path]


def chosen_lines(
    files: Sequence[Path], n_latents: int, *, source: str | None = None, kind: str | None = None
) -> list[Line]:
    """The lines of one dictionary and one kind, by latent, one of each.

    Args:
        files: of JSON lines.
        n_latents: of the index that they are for.
        source: the dictionary, where the files have several.
        kind: `typeName`, where latents have several explanations.

    Raises:
        UsageError: a line that is no explanation of a latent of the index, two of one latent, or none at all.
    """
    first: Line | None = None
    found: dict[int, Line] = {}
    for line in (line for file in files for line in _lines(file)):
        if source not in (None, line.place[1]) or kind not in (None, line.kind):
            continue
        first = first or line
        if line.place != first.place:
            raise UsageError(
                f"{line.where} is of {'/'.join(line.place)}, line {first.number} of {first.path.name} of "
                f"{'/'.join(first.place)}: choose one dictionary with --source"
            )
        if line.latent >= n_latents:
            raise UsageError(
                f"{line.where}: latent {line.latent} is out of range, this index has 0 to {n_latents - 1}: name the "
                "index of the same dictionary with --index-run"
            )
        if (other := found.get(line.latent)) is not None:
            kinds = "" if other.kind == line.kind else f" ({other.kind or 'no type'} there, {line.kind or 'none'} here)"
            raise UsageError(
                f"{line.where}: latent {line.latent} has an explanation in {other.path.name} line {other.number} "
                f"already{kinds}: choose one kind with --type, or delete a line"
            )
        found[line.latent] = line
    if not found:
        raise UsageError(f"{files[0].parent}: no explanation there is what was asked for: check --source and --type")
    return [found[latent] for latent in sorted(found)]


def _lines(path: Path) -> Iterator[Line]:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while raw := file.readline(LONGEST_LINE):
                number += 1
                if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
                    raise UsageError(
                        f"{path} line {number} is longer than {LONGEST_LINE:,} bytes: it is no explanation"
                    )
                if raw.strip():
                    yield _line(path, number, raw)
    except (gzip.BadGzipFile, EOFError, zlib.error, OSError) as error:
        raise UsageError(f"{path} is damaged after line {number} ({error}): fetch it again") from error


def _line(path: Path, number: int, raw: bytes) -> Line:
    where = f"{path} line {number}"
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON ({error}): fetch the file again, or delete the line") from error
    if not isinstance(found, dict):
        raise UsageError(f"{where} is no JSON object: a line must have index and description")
    text = found.get("description")
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{where} has no description: delete the line, or fetch the file again")
    place = (_word(found, "modelId", where), _word(found, "layer", where))
    kind, model = _word(found, "typeName", where), _word(found, "explanationModelName", where)
    author = f"{kind or 'written'} by {model or 'somebody'}"
    _check_storable(text, where)
    return Line(path, number, place, kind, _latent(found.get("index"), where), text, author)


def _word(found: dict[str, Any], name: str, where: str) -> str:
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{where}: {name} is {json.dumps(value)[:40]}, it must be a text: fetch the file again")
    _check_storable(value or "", where)
    return value or ""


def _check_storable(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} has half a surrogate pair, which is no character: delete the line") from error


def _latent(value: Any, where: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise UsageError(f"{where}: index is {json.dumps(value)[:40]}, it must be a latent's number: fetch the file again")
