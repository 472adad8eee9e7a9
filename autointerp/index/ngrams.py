"""On which tokens, and after which, a latent fires, and how often those are there at all."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from autointerp.index.contexts import Twins
from autointerp.index.gather import LatentEvents
from store.token_map import TokenMap

TOKEN_BITS = 21
"""Of a key that holds two token ids: vocabularies have less than two million."""
FEWEST = 2
"""Pairs of tokens on which a latent fires less often are left out."""


class Pairs(NamedTuple):
    """How often each pair of neighbouring tokens is there, the second of which counts."""

    keys: np.ndarray
    """`[n]` int64 ascending: the first token and the second."""
    counts: np.ndarray

    @classmethod
    def of(cls, tokens: TokenMap, twins: Twins) -> "Pairs":
        """Of all tokens that count."""
        keys, counts = np.unique(_pair(tokens, twins.places), return_counts=True)
        return cls(keys[keys >= 0], counts[keys >= 0])


def _pair(tokens: TokenMap, places: np.ndarray) -> np.ndarray:
    """`[n]` int64: the token before each place, in the same document's text, and the one there; −1 for none before."""
    has_one = places > tokens.piece_start[tokens.pieces(places)]
    before = tokens.token_ids[np.maximum(places - 1, 0)].astype(np.int64)
    return np.where(has_one, (before << TOKEN_BITS) | tokens.token_ids[places], -1)


def ngrams(events: LatentEvents, tokens: TokenMap, twins: Twins, pairs: Pairs, n: int) -> dict[str, Any]:
    """The columns of the index's `ngrams` table but `text`: the `n` commonest of one token and of two."""
    fired, latent = events.fired.place, events.fired.latent
    value = np.full(len(fired), np.nan)
    at = np.searchsorted(events.fired.keys(), events.keys())
    value[at] = events.value
    single = _commonest(latent, tokens.token_ids[fired].astype(np.int64), value, n, fewest=1)
    double = _commonest(latent, _pair(tokens, fired), value, n, fewest=FEWEST)
    seen = np.diff(twins.bounds)[single.key]
    seen_pairs = pairs.counts[np.searchsorted(pairs.keys, double.key)] if len(double.key) else np.empty(0, np.int64)
    ids = [[key] for key in single.key.tolist()]
    ids += [[key >> TOKEN_BITS, key & ((1 << TOKEN_BITS) - 1)] for key in double.key.tolist()]
    both = _Common(*(np.concatenate(columns) for columns in zip(single, double, strict=True)))
    n_seen = np.concatenate([seen, seen_pairs])
    length = np.repeat([1, 2], [len(single.key), len(double.key)])
    order = np.lexsort((both.rank, length, both.latent))
    return {
        "latent": (both.latent + events.first)[order],
        "n": length[order],
        "rank": both.rank[order],
        "token_ids": pa.array([ids[i] for i in order.tolist()], pa.list_(pa.int32())),
        "n_fired": both.n_fired[order],
        "n_seen": n_seen[order],
        "fires": (both.n_fired / np.maximum(n_seen, 1))[order],
        "share": (both.n_fired / np.maximum(events.fired.n, 1)[both.latent])[order],
        "mean": both.mean[order],
    }


class _Common(NamedTuple):
    latent: np.ndarray
    rank: np.ndarray
    key: np.ndarray
    n_fired: np.ndarray
    mean: np.ndarray
    """Of the values that were kept; NaN where none was."""


def _commonest(latent: np.ndarray, key: np.ndarray, value: np.ndarray, n: int, fewest: int) -> _Common:
    """The `n` commonest keys (none below 0) of each latent, commonest first."""
    keep = key >= 0
    latent, key, value = latent[keep], key[keep], value[keep]
    order = np.lexsort((key, latent))
    latent, key, value = latent[order], key[order], value[order]
    new = np.ones(len(key), bool)
    new[1:] = (latent[1:] != latent[:-1]) | (key[1:] != key[:-1])
    begins = np.flatnonzero(new)
    counts = np.diff(np.append(begins, len(key)))
    known = np.isfinite(value)
    sums = np.add.reduceat(np.where(known, value, 0.0), begins) if len(begins) else np.empty(0)
    n_known = np.add.reduceat(known.astype(np.int64), begins) if len(begins) else np.empty(0, np.int64)
    mean = np.where(n_known > 0, sums / np.maximum(n_known, 1), np.nan)
    latent, key = latent[begins], key[begins]
    enough = np.flatnonzero(counts >= fewest)
    chosen = enough[np.lexsort((key[enough], -counts[enough], latent[enough]))]
    of = latent[chosen]
    first = np.flatnonzero(np.concatenate([[True], of[1:] != of[:-1]])) if len(of) else np.empty(0, np.int64)
    rank = np.arange(len(of)) - np.repeat(first, np.diff(np.append(first, len(of))))
    kept = chosen[rank < n]
    return _Common(latent[kept], rank[rank < n], key[kept], counts[kept], mean[kept])
