"""Contexts and tokens as prompts show them: one line each, marked, with strengths from 1 to 10."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from autointerp.prompts import marked, quote
from store.latents import Logit, Window

MARKED = 0.3
"""Of its context's strongest token: from this share on a token is marked."""
LEVELS = 10
"""Strengths are told from 1 to this."""
NONE = "(none)"
"""Stands where there is nothing to show."""
BREAK = re.compile(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\s]+")
"""Also what is not seen, or turns the direction of text."""


def active(windows: Sequence[Window]) -> str:
    """A line for each context: the strength of each marked run, in tenths of the strongest shown, then the text."""
    most = max((max(window.values) for window in windows), default=0.0)
    return _block(f"{_strengths(window, most)} | {_line(window, fires(window))}" for window in windows)


def silent(windows: Sequence[Window]) -> str:
    """A line for each context, its peak marked."""
    return _block(_line(window, (window.peak,)) for window in windows)


def others(windows: Sequence[Window]) -> str:
    """A line for each context of another latent, marked where that one fires."""
    return _block(_line(window, fires(window)) for window in windows)


def spelled(logits: Iterable[Logit]) -> str:
    """The tokens that can be read, in quotes, in their order; empty where there are none."""
    return " ".join(_json(logit.token) for logit in logits if logit.token and "\ufffd" not in logit.token)


def counted(words: Iterable[str], n: int) -> str:
    """The `n` commonest of the words, in quotes, each with its count."""
    counts = Counter(words).most_common()
    listed = sorted(counts, key=lambda item: (-item[1], item[0]))[:n]
    return quote(" ".join(f"{_json(word)} {count}" for word, count in listed))


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def fires(window: Window) -> tuple[int, ...]:
    """Indices of the tokens that are marked: the strong ones; the peak, where none is."""
    least = MARKED * max(window.values)
    return tuple(i for i, value in enumerate(window.values) if value > 0 and value >= least) or (window.peak,)


def _strengths(window: Window, most: float) -> str:
    marks = np.array(fires(window))
    runs = np.split(marks, np.flatnonzero(np.diff(marks) > 1) + 1)
    tops = [max(window.values[i] for i in run) for run in runs]
    return " ".join(str(_level(top, most)) for top in tops)


def _level(value: float, most: float) -> int:
    return min(max(1, math.ceil(LEVELS * value / most)), LEVELS) if most > 0 else 1


def _line(window: Window, indices: Sequence[int]) -> str:
    """The marked text on one line: whitespace is one space, but for line breaks, which are shown."""
    return CONTROL.sub(" ", BREAK.sub("⏎", marked(window, indices)))


def _block(lines: Iterable[str]) -> str:
    return quote(joined) if (joined := "\n".join(lines)) else NONE
