"""Replies held to a JSON Schema: the model chooses among the tokens that keep the reply inside it.

Willard & Louf 2023, arXiv:2307.09702, section 3, for the shapes that scorers and explainers ask for: objects, and
arrays of fixed length, of booleans, nulls, enumerations, small ranges of integers, and strings of any words.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from jaxtyping import Bool
from torch import Tensor

MAX_INTEGERS = 101
"""A wider range of integers is not spelled out."""
MAX_ITEMS = 1000
WORD = -1
"""The place inside a string, where any word may come."""

Part = tuple[str, ...] | None
"""Spellings of which one comes next; None for the inside of a string."""


def spelled(schema: str) -> list[Part] | None:
    """The parts of a reply that satisfies `schema`, in order; None where it has a shape that is not held to."""
    parts = _parts(json.loads(schema))
    if parts is None:
        return None
    merged: list[Part] = []
    # One literal, tokenized whole, reads to the model as the JSON that it knows.
    for part in parts:
        last = merged[-1] if merged else None
        if part is not None and last is not None and len(part) == len(last) == 1:
            merged[-1] = (last[0] + part[0],)
        else:
            merged.append(part)
    return merged


def _parts(schema: Any) -> list[Part] | None:
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return [(json.dumps(schema["const"]),)]
    if schema.get("enum"):
        return [tuple(dict.fromkeys(json.dumps(value) for value in schema["enum"]))]
    kind = schema.get("type")
    return SHAPES[kind](schema) if isinstance(kind, str) and kind in SHAPES else None


def _object(schema: Mapping[str, Any]) -> list[Part] | None:
    properties = [(f"{json.dumps(name)}: ", value) for name, value in schema.get("properties", {}).items()]
    return _sequence("{", properties, "}")


def _array(schema: Mapping[str, Any]) -> list[Part] | None:
    n = schema.get("maxItems")
    if n is None or n != schema.get("minItems") or n > MAX_ITEMS:
        return None
    return _sequence("[", [("", schema.get("items"))] * n, "]")


def _sequence(start: str, items: Sequence[tuple[str, Any]], end: str) -> list[Part] | None:
    parts: list[Part] = [(start,)]
    for number, (before, schema) in enumerate(items):
        inside = _parts(schema)
        if inside is None:
            return None
        parts += [((", " if number else "") + before,)] if number or before else []
        parts += inside
    return [*parts, (end,)]


def _integer(schema: Mapping[str, Any]) -> list[Part] | None:
    low, high = schema.get("minimum"), schema.get("maximum")
    if not isinstance(low, int) or not isinstance(high, int) or not 0 <= high - low < MAX_INTEGERS:
        return None
    return [tuple(map(str, range(low, high + 1)))]


SHAPES: dict[str, Callable[[Mapping[str, Any]], list[Part] | None]] = {
    "array": _array,
    "boolean": lambda _: [("true", "false")],
    "integer": _integer,
    "null": lambda _: [("null",)],
    "object": _object,
    "string": lambda _: [('"',), None, ('"',)],
}
"""Shapes that replies are held to, by the schema's `type`."""


@dataclass(frozen=True)
class Grammar:
    """The parts of a reply as tokens; no spelling is empty."""

    parts: tuple[tuple[tuple[int, ...], ...] | None, ...]
    words: Bool[Tensor, "d_vocab"]
    """Tokens that may stand inside a string."""

    def least(self, part: int) -> int:
        """Fewest tokens that finish the reply from the start of part `part`."""
        return sum(min(map(len, options)) for options in self.parts[part:] if options is not None)


@final
class Walk:
    """Where a growing reply stands in its grammar; more than one place while spellings share their first tokens."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._places = self._starts(0)

    @property
    def may_end(self) -> bool:
        """Whether the reply could stop here; more may be allowed too, as after the 1 of 10."""
        return any(part == len(self._grammar.parts) for part, _, _ in self._places)

    @property
    def done(self) -> bool:
        """Whether the reply is whole."""
        return all(part == len(self._grammar.parts) for part, _, _ in self._places)

    def allowed(self, n_left: int) -> Bool[Tensor, "d_vocab"]:
        """Tokens that may come next: of those after which the reply fits into `n_left` tokens, if there are any."""
        fitting = [place for place in self._places if self._least(*place) <= n_left]
        mask = self._grammar.words.new_zeros(self._grammar.words.shape)
        for _, spelling, at in fitting or self._places:
            if spelling:
                mask[spelling[at]] = True
            elif at == WORD:
                mask |= self._grammar.words
        return mask

    def _least(self, part: int, spelling: tuple[int, ...], at: int) -> int:
        """Fewest tokens to the end from a place."""
        return (1 if at == WORD else len(spelling) - at) + self._grammar.least(part + 1)

    def take(self, token: int) -> None:
        """Go on by one token of those allowed."""
        after: set[tuple[int, tuple[int, ...], int]] = set()
        for part, spelling, at in self._places:
            if spelling and spelling[at] == token:
                after |= {(part, spelling, at + 1)} if at + 1 < len(spelling) else self._starts(part + 1)
            elif at == WORD and bool(self._grammar.words[token]):
                after |= self._starts(part)
        self._places = after

    def _starts(self, part: int) -> set[tuple[int, tuple[int, ...], int]]:
        """Places at the start of part `part`: also of the next one, where this one may be empty."""
        if part == len(self._grammar.parts):
            return {(part, (), 0)}
        options = self._grammar.parts[part]
        if options is None:
            return {(part, (), WORD), *self._starts(part + 1)}
        return {(part, option, 0) for option in options}
