"""Reading a reply that should be one JSON object of texts, and often is nearly one."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.parse import CODE_FENCE, objects, own_objects

CLOSING = {'"': '"', "'": "'", "“": "”"}


def read_parts(reply: str, names: Sequence[str]) -> dict[str, str] | None:
    """The texts called `names` in `reply`, each with its whitespace evened; None where one is missing or says nothing.

    Prose around the object, code fences, comments in front, trailing commas, single or curly quotes, unescaped
    quotes and a missing brace at the end are read past. Of several objects the last that begins a line counts:
    earlier ones are thoughts, and those inside a sentence may be quoted from the evidence. Prose without an object
    is not read: a refusal must not pass for an explanation.
    """
    text = CODE_FENCE.sub("", reply)
    every = [value for value in objects(text) if value.keys() >= set(names)]
    whole = [value for value in own_objects(text) if value.keys() >= set(names)] or every
    found = [parts for value in whole if (parts := _parts(value, names)) is not None]
    if whole:
        return found[-1] if found else None
    return _parts({name: _loose(text, name) for name in names}, names)


def _parts(value: Mapping[str, Any], names: Sequence[str]) -> dict[str, str] | None:
    found = {name: " ".join(said.split()) for name in names if isinstance(said := value.get(name), str)}
    # A text of dots is the shape that was asked for, sent back.
    says = len(found) == len(names) and all(any(map(str.isalnum, said)) for said in found.values())
    return found if says else None


def _loose(text: str, name: str) -> str | None:
    """The last text after `name` and a colon, up to a quote before a comma and a name, a brace, or the end."""
    keys = list(re.finditer(rf"""["'“]?\b{re.escape(name)}\b["'”]?\s*[:=]\s*(["'“])""", text))
    if not keys:
        return None
    close = re.escape(CLOSING[keys[-1][1]])
    said = re.compile(rf"(.*?){close}\s*(?=\}}|,\s*(?:[\"'“]\w|\}})|$)", re.DOTALL).match(text, keys[-1].end())
    return said and said[1].replace('\\"', '"').replace("\\n", " ")
