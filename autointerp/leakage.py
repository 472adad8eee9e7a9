"""How much of an explanation is copied from the contexts it was written from: a quotation can score without meaning."""

import re
from collections.abc import Iterable

from store.latents import Window

RUN = 6
"""Words: as many in a row, in the order of a context, are a quotation."""
LEAKS = 0.25
"""Share of quoted words at which an explanation is flagged: one run of six in 24 words."""

# Scripts without spaces have one word to a character.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def quoted(text: str, windows: Iterable[Window]) -> float:
    """Share of the words of `text` that stand in runs of `RUN` or more copied from one of `windows`.

    Case, punctuation and spacing are no difference; a run does not reach from one context into the next. 0 for a text
    without words.
    """
    words = _words(text)
    shown = {run for window in windows for run in _runs(_words(window.text))}
    copied = {at + i for at, run in enumerate(_runs(words)) if run in shown for i in range(RUN)}
    return len(copied) / len(words) if words else 0.0


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def _runs(words: list[str]) -> Iterable[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(RUN)), strict=False)
