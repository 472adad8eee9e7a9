"""Text that can be written and sent: half a surrogate pair, which JSON can hold and UTF-8 cannot, is replaced."""

import re
from typing import Any

_HALVES = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
"""Unicode's character for one that cannot be told."""


def whole(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair: as long as before."""
    return text if text.isascii() else _HALVES.sub(REPLACEMENT, text)


def whole_in(value: Any) -> Any:
    """`value` with every text in it made whole, in lists too."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, list | tuple):
        return [whole_in(each) for each in value]
    return value
