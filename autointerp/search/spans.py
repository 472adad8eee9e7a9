"""From stretches of text, in bytes, to the tokens that stand for them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from store.codes import runs_from
from store.token_map import TokenMap

BLOCK = 1 << 20
"""Tokens looked at together."""


class Stretches(NamedTuple):
    """Bytes `start <= i < stop` of `TokenMap.text`, in order of `start`."""

    start: np.ndarray
    """`[n]` int64."""
    stop: np.ndarray


class TokensOf(NamedTuple):
    """The tokens that overlap some stretches."""

    which: np.ndarray
    """`[n]` ascending: index of the stretch."""
    place: np.ndarray
    """`[n]` int64."""


@dataclass(frozen=True)
class TextRuns:
    """Runs of tokens of one piece whose bytes ascend, without those of no text, in order of their first byte.

    One document may be cut into pieces anywhere in the harvest, and a part of it may be in two of them.
    """

    tokens: TokenMap
    first: np.ndarray
    """`[n_runs]` place of its first token."""
    stop: np.ndarray
    """`[n_runs]` one past the place of its last."""
    begin: np.ndarray
    """`[n_runs]` its first byte, ascending."""
    end: np.ndarray
    """`[n_runs]` one past its last byte."""
    reached: np.ndarray
    """`[n_runs]` the largest `end` so far."""

    @classmethod
    def of(cls, tokens: TokenMap) -> "TextRuns":
        """Those of all tokens."""
        found = [_bounds(tokens, start) for start in range(0, len(tokens), BLOCK)]
        first, stop = (np.concatenate(bounds) for bounds in zip(*found, strict=True))
        begin, end = np.asarray(tokens.byte_start[first]), np.asarray(tokens.byte_end[stop - 1])
        order = np.argsort(begin, kind="stable")
        first, stop, begin, end = first[order], stop[order], begin[order], end[order]
        return cls(tokens, first, stop, begin, end, np.maximum.accumulate(end) if len(end) else end)

    def tokens_of(self, stretches: Stretches) -> TokensOf:
        """Every token of which at least a byte lies in a stretch, or that stands between two bytes of it."""
        low = np.searchsorted(self.reached, stretches.start, "right")
        n = np.maximum(np.searchsorted(self.begin, stretches.stop, "left") - low, 0)
        which, run = np.repeat(np.arange(len(n)), n), runs_from(low, n)
        inside = self.end[run] > stretches.start[which]
        which, run = which[inside], run[inside]
        start, stop = stretches.start[which], stretches.stop[which]
        begins, ends = np.asarray(self.tokens.byte_start), np.asarray(self.tokens.byte_end)
        first = _first(self.first[run], self.stop[run], lambda at, i: ends[at] > start[i])
        past = _first(self.first[run], self.stop[run], lambda at, i: begins[at] >= stop[i])
        n = np.maximum(past - first, 0)
        return TokensOf(np.repeat(which, n), runs_from(first, n))


def _bounds(tokens: TokenMap, start: int) -> tuple[np.ndarray, np.ndarray]:
    """First places of the runs among the tokens from `start`, and one past their last: no run goes across a block."""
    stop = min(start + BLOCK, len(tokens))
    begins, ends = tokens.byte_start[start:stop], tokens.byte_end[start:stop]
    has_text = tokens.char_start[start:stop] >= 0
    new = np.ones(stop - start, bool)
    new[1:] = ~has_text[:-1] | (begins[1:] < begins[:-1]) | (ends[1:] < ends[:-1])
    pieces = tokens.piece_first[slice(*np.searchsorted(tokens.piece_first, [start, stop]))]
    new[pieces - start] = True
    first = np.flatnonzero(new & has_text)
    cut = np.append(np.flatnonzero(new | ~has_text), stop - start)
    return first + start, cut[np.searchsorted(cut, first, "right")] + start


def _first(low: np.ndarray, high: np.ndarray, past: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """`[n]` first place in `low <= place < high` that is `past`, which stays true once it is; `high` where none is."""
    low, high = low.copy(), high.copy()
    while len(open_ := np.flatnonzero(low < high)):
        middle = (low[open_] + high[open_]) // 2
        is_past = past(middle, open_)
        high[open_[is_past]] = middle[is_past]
        low[open_[~is_past]] = middle[~is_past] + 1
    return low
