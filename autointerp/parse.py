"""Reading replies that should be one JSON object of answers by number, and often are nearly one."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

DECODER = json.JSONDecoder(strict=False)
"""Not strict: line breaks may stand unescaped in texts."""
CODE_FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)
TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")
CURLY = str.maketrans("“”„‘’", '"""\'\'')
LOOSE = re.compile(r"""^[\s{,\-*]*["']?(\d+)["']?\s*[:=]\s*["']?([\w.]+)["']?\s*[,}]*\s*$""", re.MULTILINE)
"""A line of one number and its answer, where no object could be read."""
YES, NO = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})

Read = Callable[[Any], float | None]
"""From the JSON value of one answer to what it means; None where it is no answer."""


def objects(text: str) -> Iterator[dict[str, Any]]:
    """Every outermost JSON object in `text`."""
    at = 0
    while (at := text.find("{", at)) >= 0:
        try:
            value, at = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
        else:
            yield value


def read_answers(reply: str, ids: Sequence[str], read: Read) -> dict[str, float]:
    """The answers of `reply` that can be read, by id.

    Prose around the object, code fences, trailing commas, curly quotes and a missing brace at the end are read past. Of
    several objects the last that answers counts: earlier ones are thoughts, or quoted from the contexts. An id that is
    missing, unknown or answered with something else is left out, and costs no other id its answer: nothing is counted
    by position.
    """
    text = TRAILING_COMMA.sub("", CODE_FENCE.sub("", reply).translate(CURLY))
    wanted = set(ids)
    found = [value for value in objects(text) if wanted & {str(key).strip() for key in value}]
    said = found[-1] if found else _by_line(text)
    answers = {str(key).strip(): read(value) for key, value in said.items()}
    return {name: answer for name in ids if (answer := answers.get(name)) is not None}


def _by_line(text: str) -> Mapping[str, Any]:
    """One answer a line; an id that is answered twice and differently has none."""
    said: dict[str, str | None] = {}
    for name, value in LOOSE.findall(text.replace(", ", "\n").replace("{", "\n{")):
        said[name] = value if said.get(name, value) == value else None
    return said


def yes_or_no(value: Any) -> float | None:
    """1 or 0, however it is written; None for anything else."""
    word = str(value).strip().lower()
    return 1.0 if word in YES else 0.0 if word in NO else None


def one_of(n: int) -> Read:
    """Reads a whole number from 1 to `n`."""
    return between(1, n)


def between(low: int, high: int) -> Read:
    """Reads a whole number from `low` to `high`."""

    def read(value: Any) -> float | None:
        text = str(value).strip()
        if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}(\.0)?", text):
            return None
        return number if low <= (number := float(text)) <= high else None

    return read
