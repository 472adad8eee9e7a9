"""Where a query stands in the documents: a literal text by comparing bytes, a regular expression with RE2.

Both run at the speed of memory and in time linear in the text, whatever is asked: neither loops over matches in Python,
and RE2 never backtracks (Cox 2010, https://swtch.com/~rsc/regexp/regexp3.html).
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from autointerp.search.spans import Stretches
from store.errors import UsageError
from store.token_map import TokenMap

BLOCK = 1 << 18
"""Bytes compared together: they and the results stay in the cache."""
SHARE = 1 << 22
"""Bytes that a thread looks through at a time."""
FILTERED = 4
"""Bytes of a query that are compared everywhere; the others only where these are as they should be."""
MAX_QUERY = 1000
"""Bytes."""
OPEN, CLOSE = 0xFF, 0xFE
"""Put around every match of an expression: no UTF-8 text has either byte."""

MOST_THREADS = 8

A = TypeVar("A")
T = TypeVar("T")
Deadline = Callable[[], None]


def deadline(timeout_s: float) -> Deadline:
    """A function that raises a UsageError when it is called later than `timeout_s` from now."""
    until = time.monotonic() + timeout_s

    def check() -> None:
        if time.monotonic() > until:
            raise UsageError(f"the search took longer than {timeout_s:g} s and was stopped: ask for something rarer")

    return check


def literal(text: np.ndarray, query: str, check: Deadline, *, exact: bool = False) -> Stretches:
    """Every place, overlapping ones too, at which `text` reads `query`.

    Args:
        text: `[n_bytes]` uint8 of UTF-8, with a byte that is none between documents.
        query: not empty.
        check: called between blocks.
        exact: whether the case of ASCII letters matters; that of others always does.

    Raises:
        UsageError: the query is too long.
    """
    wanted = query.encode() if exact else query.encode().lower()
    if len(wanted) > MAX_QUERY:
        raise UsageError(f"the query has {len(wanted):,} bytes: search for at most {MAX_QUERY:,}")
    text, stop = np.asarray(text), len(text) - len(wanted) + 1

    def look(start: int) -> np.ndarray:
        ends = range(start, min(start + SHARE, stop), BLOCK)
        return np.concatenate([_in_block(text, at, min(at + BLOCK, stop), wanted, exact) for at in ends])

    starts = np.concatenate([np.empty(0, np.int64), *shared(look, range(0, stop, SHARE), check)])
    return Stretches(starts, starts + len(wanted))


def shared(work: Callable[[A], T], items: Iterable[A], check: Deadline) -> Iterator[T]:
    """`work` on each item, in order, by a thread for each core: what takes the time lets go of the GIL."""
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS))
    try:
        for done in pool.map(work, items):
            check()
            yield done
    finally:
        pool.shutdown(cancel_futures=True)


def _in_block(text: np.ndarray, start: int, stop: int, wanted: bytes, exact: bool) -> np.ndarray:
    same = np.ones(stop - start, bool)
    for at, byte in enumerate(wanted[:FILTERED]):
        same &= _is(text[start + at : stop + at], byte, exact)
    found = np.flatnonzero(same) + start
    for at, byte in enumerate(wanted[FILTERED:], FILTERED):
        if not len(found):
            break
        found = found[_is(text[found + at], byte, exact)]
    return found


def _is(have: np.ndarray, byte: int, exact: bool) -> np.ndarray:
    # Setting this bit makes a capital small, and nothing else a letter.
    is_letter = ord("a") <= byte <= ord("z")
    return (have | 0x20) == byte if is_letter and not exact else have == byte


def expression(tokens: TokenMap, pattern: str, check: Deadline, *, exact: bool = False) -> Stretches:
    """Every match of a regular expression that is not empty, none overlapping another, each within one document.

    Raises:
        UsageError: RE2 does not take the expression.
    """
    if len(pattern.encode()) > MAX_QUERY:
        raise UsageError(f"the expression has {len(pattern.encode()):,} bytes: search with at most {MAX_QUERY:,}")
    asked = pattern if exact else f"(?i){pattern}"
    found = shared(lambda docs: _matched(tokens, *docs, asked), list(_blocks(tokens.doc_bytes)), check)
    start, stop = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Stretches(start[start < stop], stop[start < stop])


def _blocks(doc_bytes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of documents of some length together."""
    cuts = np.searchsorted(doc_bytes, np.arange(0, doc_bytes[-1], SHARE))
    bounds = np.unique(np.append(cuts, len(doc_bytes) - 1)).tolist()
    yield from pairwise(bounds)


def _matched(tokens: TokenMap, first: int, stop: int, pattern: str) -> Stretches:
    """Matches in documents `first` to `stop`, read off the marks that RE2 puts around them."""
    own = tokens.doc_bytes[first : stop + 1]
    text = tokens.text[own[0] : own[-1]]
    offsets = own - own[0] - np.arange(len(own))  # without the separators
    texts = pa.LargeStringArray.from_buffers(
        stop - first, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(text[text != OPEN])
    )
    try:
        marked = pc.call_function(
            "replace_substring_regex", [texts], pc.ReplaceSubstringOptions(pattern, b"\xff\\0\xfe")
        )
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"the expression cannot be read ({str(error).splitlines()[0]}): write it as RE2 does, without "
            "backreferences or lookaround"
        ) from error
    bounds = np.frombuffer(marked.buffers()[1], np.int64)[: len(marked) + 1]
    data = np.frombuffer(marked.buffers()[2], np.uint8)[: bounds[-1]]
    opens, closes = np.flatnonzero(data == OPEN), np.flatnonzero(data == CLOSE)
    # A mark before i has all marks of earlier matches before it; a separator was left out after every document.
    doc, number = np.searchsorted(bounds, opens, "right") - 1, np.arange(len(opens))
    shift = own[0] + doc - 2 * number
    return Stretches(opens + shift, closes - 1 + shift)
