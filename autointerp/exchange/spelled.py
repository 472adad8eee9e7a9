"""The text that token ids stand for, and which of its characters each of them spells."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from activations.tokenizer import Tokenizer

MOST_SHARING = 8
"""Tokens that are taken together at most, where they spell one character only together."""
NO_CHARACTER = "\ufffd"


class Spelled(NamedTuple):
    """A text and its tokens."""

    text: str
    char_start: np.ndarray
    """`[n]` int32; -1 for special tokens, which stand for no text."""
    char_end: np.ndarray


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """The text of every token alone, by id."""
    return [tokenizer.decode([token_id]) for token_id in range(tokenizer.d_vocab)]


def spell(tokenizer: Tokenizer, words: Sequence[str], ids: Sequence[int]) -> Spelled:
    """Decode `ids`.

    Args:
        tokenizer: of the model that reads them.
        words: the text of every token alone, by id.
        ids: one row's.
    """
    text, start, end = "", np.full(len(ids), -1, np.int32), np.full(len(ids), -1, np.int32)
    first = 0
    while first < len(ids):
        if ids[first] in tokenizer.special_ids:
            first += 1
            continue
        stop = first
        while stop < len(ids) and ids[stop] not in tokenizer.special_ids:
            stop += 1
        piece, spans = _plain(tokenizer, words, ids[first:stop])
        start[first:stop], end[first:stop] = (spans + len(text)).T
        text, first = text + piece, stop
    return Spelled(text, start, end)


def _plain(tokenizer: Tokenizer, words: Sequence[str], ids: Sequence[int]) -> tuple[str, np.ndarray]:
    """The text of ids that are not special, and `[n, 2]` spans."""
    text, pieces = tokenizer.decode(ids), [words[i] for i in ids]
    if "".join(pieces) == text:
        ends = np.cumsum([len(piece) for piece in pieces])
        return text, np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    return _together(tokenizer, ids)


def _together(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, np.ndarray]:
    """As a stream is decoded: what comes after the tokens before, once it is whole characters."""
    text, spans, before, read = "", np.zeros((len(ids), 2), np.int64), 0, 0
    for i in range(len(ids)):
        known, now = tokenizer.decode(ids[before:read]), tokenizer.decode(ids[before : i + 1])
        whole = len(now) > len(known) and not now.endswith(NO_CHARACTER)
        if whole or i + 1 == len(ids) or i + 1 - read >= MOST_SHARING:
            piece = now[len(known) :]
            spans[read : i + 1] = len(text), len(text) + len(piece)
            text, before, read = text + piece, read, i + 1
    return text, spans
