"""Reading replies that should be one JSON object of answers by number, and often are nearly one."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

CODE_FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)
TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")
CURLY = str.maketrans("“”„‘’", '"""\'\'')
LOOSE = re.compile(r"""[\s{\-*]*["']?(\d+)["']?\s*[:=]\s*["']?([\w.]+)["']?[\s}]*""")
"""One number and its answer, where no object could be read."""
MARKS = " \t`*->•"
"""What may stand before an object on its line."""
YES, NO = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})

Read = Callable[[Any], float | None]
"""From the JSON value of one answer to what it means; None where it is no answer."""


def merged(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """As an object; a name with two values that differ has None: nobody can say which was meant."""
    said: dict[str, Any] = {}
    for raw, value in pairs:
        name = raw.strip()
        said[name] = value if said.get(name, value) == value else None
    return said


DECODER = json.JSONDecoder(strict=False, object_pairs_hook=merged)
"""Not strict: line breaks may stand unescaped in texts."""


def own_objects(text: str) -> list[dict[str, Any]]:
    """The objects that begin a line, as answers do; one inside a sentence is quoted."""
    return [value for at, value in _placed(text) if _begins_line(text, at)]


def _begins_line(text: str, at: int) -> bool:
    return not text[:at].rpartition("\n")[2].strip(MARKS)


def objects(text: str) -> Iterator[dict[str, Any]]:
    """Every outermost JSON object in `text`."""
    return (value for _, value in _placed(text))


def _placed(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each with where it begins."""
    at = 0
    while (at := text.find("{", at)) >= 0:
        begins = at
        try:
            value, at = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
        else:
            yield begins, value


def read_answers(reply: str, ids: Sequence[str], read: Read) -> dict[str, float]:
    """The answers of `reply` that can be read, by id.

    Prose around the object, code fences, trailing commas, curly quotes, a missing brace at the end and an object
    around the object are read past. An object inside a sentence is not read, for it may be quoted. Of several
    objects those with the most of the ids count: others are thoughts, or quoted from the contexts. An id that is
    missing, unknown, answered twice and differently or with something else is left out, and costs no other id its
    answer: nothing is counted by position.
    """
    text = TRAILING_COMMA.sub("", CODE_FENCE.sub("", reply).translate(CURLY))
    found = [_unwrapped(value) for value in own_objects(text)]
    sizes = [len(value.keys() & set(ids)) for value in found]
    most = max(sizes, default=0)
    fullest = [value for value, size in zip(found, sizes, strict=True) if size == most]
    said = merged(pair for value in fullest for pair in value.items()) if most else _loose(text)
    return {name: answer for name in ids if (answer := read(said.get(name))) is not None}


def _unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """What `{"answers": {...}}` holds."""
    while len(value) == 1 and isinstance(inner := next(iter(value.values())), dict):
        value = inner
    return value


def _loose(text: str) -> dict[str, Any]:
    """Answers between the first and last brace, or of the whole reply, that are nothing but answers but for a last one
    cut off: a line among prose may be one of the contexts, quoted."""
    begins = (found.start() for found in re.finditer(r"\{", text) if _begins_line(text, found.start()))
    inside = text[next(begins, 0) :]
    pieces = [piece for piece in re.split(r"[,\n]", inside[: inside.rfind("}") + 1] or inside) if piece.strip(" {}")]
    found = [LOOSE.fullmatch(piece) for piece in pieces]
    if not all(found[:-1]):
        return {}
    return merged((match[1], match[2]) for match in found if match)


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
