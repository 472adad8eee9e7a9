"""On which tokens, and after which, a latent fires, and how often those are there at all."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from autointerp.index.contexts import Twins
from autointerp.index.gather import LatentEvents
from autointerp.index.groups import begins, largest, ranks
from store.token_map import TokenMap

TOKEN_BITS = 21
"""Of a key that holds two token ids: vocabularies have less than two million."""
PLACES = 1_000_000
"""Places whose pairs are looked at together."""
FEWEST = 2
"""Pairs of tokens on which a latent fires less often are left out."""


class Pairs(NamedTuple):
    """How often each pair of neighbouring tokens is there that is there more than once; the second counts."""

    keys: np.ndarray
    """`[n]` int64 ascending: the first token and the second."""
    counts: np.ndarray

    @classmethod
    def of(cls, tokens: TokenMap, twins: Twins) -> "Pairs":
        """Of all tokens that count."""
        found = []
        for low, high in _slices(twins.bounds, PLACES):
            # All places of a second token are in one slice.
            places = twins.places[low:high]
            pairs = _pair(tokens, places, tokens.pieces(places))
            keys, counts = np.unique(pairs, return_counts=True)
            often = (keys >= 0) & (counts >= FEWEST)
            found.append((keys[often], counts[often].astype(np.int32)))
        keys, counts = (np.concatenate(columns) for columns in zip(*found, strict=True))
        order = np.argsort(keys)
        return cls(keys[order], counts[order])


def _slices(bounds: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Neighbouring runs, `bounds[i]` to `bounds[i + 1]`, of `most` entries together, or one alone that has more."""
    low = 0
    while low < len(bounds) - 1:
        high = max(int(np.searchsorted(bounds, bounds[low] + most, "right")) - 1, low + 1)
        yield int(bounds[low]), int(bounds[high])
        low = high


def _pair(tokens: TokenMap, places: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """`[n]` int64: the token before each place, in its piece's text, and the one there; −1 for none before."""
    has_one = places > tokens.piece_start[pieces]
    before = tokens.token_ids[np.maximum(places - 1, 0)].astype(np.int64)
    return np.where(has_one, (before << TOKEN_BITS) | tokens.token_ids[places], -1)


def ngrams(events: LatentEvents, tokens: TokenMap, twins: Twins, pairs: Pairs, n: int) -> dict[str, Any]:
    """The columns of the index's `ngrams` table but `text`: the `n` commonest of one token and of two."""
    fired, latent = events.fired.place, events.fired.latent
    value = events.value
    if events.shift.any():
        value = np.full(len(fired), np.nan, np.float32)
        value[np.searchsorted(events.fired.keys(), events.keys())] = events.value
    single = _commonest(latent, tokens.token_ids[fired].astype(np.int64), value, n, fewest=1)
    double = _commonest(latent, _pair(tokens, fired, events.fired.piece), value, n, fewest=FEWEST)
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
    keys = np.where(key >= 0, (latent << (2 * TOKEN_BITS)) | key, -1)
    ordered = np.sort(keys)
    ordered = ordered[np.searchsorted(ordered, 0) :]
    first = begins(ordered)
    counts = np.diff(np.append(first, len(ordered)))
    first, counts = first[counts >= fewest], counts[counts >= fewest]
    whose = ordered[first] >> (2 * TOKEN_BITS)
    may = largest(whose, counts, n)
    first, counts, whose = first[may], counts[may], whose[may]
    order = np.lexsort((first, -counts, whose))
    order = order[ranks(whose[order]) < n]
    chosen, counts, whose = ordered[first[order]], counts[order], whose[order]
    return _Common(whose, ranks(whose), chosen & ((1 << (2 * TOKEN_BITS)) - 1), counts, _means(chosen, keys, value))


def _means(chosen: np.ndarray, keys: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`[n]` mean of the known values of each chosen key; NaN where there is none."""
    if not len(chosen):
        return np.empty(0)
    order = np.argsort(chosen)
    ordered = chosen[order]
    at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    own = (ordered[at] == keys) & np.isfinite(value)
    n_known = np.bincount(at[own], minlength=len(chosen))
    sums = np.bincount(at[own], value[own], len(chosen))
    out = np.empty(len(chosen))
    out[order] = np.where(n_known > 0, sums / np.maximum(n_known, 1), np.nan)
    return out
