"""Which contexts of a latent to keep: its strongest, fair samples of its whole range, near misses, and silent twins.

A *peak* is the strongest event of a latent in one piece: one document's tokens within one sequence. Two contexts are
one where the tokens around their peaks read the same, whatever their case, spaces and digits; which others a context
stands for is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from autointerp.index.config import IndexConfig
from autointerp.index.gather import PLACE_BITS, LatentEvents
from autointerp.index.groups import begins, first_of_each, joined, largest, ranks
from autointerp.index.spill import in_sample
from autointerp.index.statistics import order_bits
from store.token_map import TokenMap

KEY_BEFORE, KEY_AFTER = 8, 3
"""Two contexts are one when the tokens this far before and after the peak read the same."""
DRAWS = 8
"""Occurrences of a token tried for every silent context wanted."""
SPARE = 32
"""Peaks looked at for every context wanted, before those that read the same are left out."""


class Contexts(NamedTuple):
    """Contexts to store, of latents counted from the first of a range."""

    latent: np.ndarray
    band: np.ndarray
    """`[n]` names."""
    rank: np.ndarray
    place: np.ndarray
    value: np.ndarray
    weight: np.ndarray
    """Peaks (of a silent context: silent occurrences of its token) that it stands for."""
    n_same: np.ndarray
    """Peaks among those it was chosen from that read the same, itself included."""


class Peaks(NamedTuple):
    """The strongest event in each piece, in order of latent and place."""

    latent: np.ndarray
    place: np.ndarray
    value: np.ndarray


def peaks(events: LatentEvents) -> Peaks:
    """The strongest event of each latent in each piece; of equal ones the first."""
    latent, piece = events.latent, events.piece
    if not len(latent):
        return Peaks(latent, events.place, events.value)
    first = begins(latent, piece)
    group = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(latent))))
    highest = np.maximum.reduceat(events.value, first)
    at = np.flatnonzero(events.value == highest[group])
    at = at[begins(group[at])]
    return Peaks(latent[at], events.place[at], events.value[at])


@dataclass(frozen=True)
class Reading:
    """What tokens read like, to tell contexts apart."""

    tokens: TokenMap
    alike: np.ndarray
    """`[d_vocab]` a number that tokens share which read the same."""

    @classmethod
    def of(cls, tokens: TokenMap, words: Sequence[str]) -> "Reading":
        """`words` are the texts of all tokens, by id."""
        plain = ["".join("0" if c.isdigit() else c for c in word.casefold() if not c.isspace()) for word in words]
        # A token that is nothing but space is no other's like, nor is one without text.
        named = [word if word else f"\0{number}" for number, word in enumerate(plain)]
        return cls(tokens, np.unique(np.array(named, dtype=object).astype(str), return_inverse=True)[1])

    def keys(self, places: np.ndarray) -> np.ndarray:
        """`[n]` uint64 that are equal where the tokens around the places read the same."""
        spans = self.tokens.spans(places, KEY_BEFORE, KEY_AFTER)
        key = np.zeros(len(places), np.uint64)
        for step in range(-KEY_BEFORE, KEY_AFTER + 1):
            at = places + step
            inside = (at >= spans.start) & (at < spans.stop)
            ids = self.tokens.token_ids[np.where(inside, at, places)]
            key = mixed(key, np.where(inside, self.alike[np.minimum(ids, len(self.alike) - 1)] + 1, 0))
        return key


def mixed(key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`[n]` uint64 hash of what was hashed in `key`, followed by `value` (splitmix64's finaliser)."""
    x = key * np.uint64(0x9E3779B97F4A7C15)
    x += value.astype(np.uint64, copy=False)
    x += np.uint64(0x632BE59BD9B4E019)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(31)
    return x


def choose(
    events: LatentEvents, tokens: TokenMap, reading: Reading, cfg: IndexConfig, misses: "Misses", twins: "Twins"
) -> Contexts:
    """The contexts of the latents of `events`, in order of latent."""
    found = peaks(events)
    chosen = [strongest(found, reading, cfg.n_top)]
    sample = events.sampled(tokens, cfg.seed)
    sampled = peaks(sample) if events.shift.any() else found
    # Events that one of the sample stands for: of all that happened, not of all that might have been drawn.
    rate = events.fired.n / np.maximum(sample.n, 1)
    widths = equal_widths(sampled, cfg.n_bands, highest(found, events.n_latents))
    for name, band in (("q", equal_counts(sampled, cfg.n_bands)), ("v", widths)):
        drawn = draw(sampled, band, reading, cfg, events.first)
        chosen.append(
            drawn._replace(
                band=np.array([f"{name}{number + 1}" for number in drawn.band.tolist()], dtype=object),
                weight=drawn.weight * rate[drawn.latent],
            )
        )
    chosen.append(near(misses, events, reading, cfg))
    chosen.append(silent(chosen[1], events, twins, reading, cfg))
    together = Contexts(*(np.concatenate(columns) for columns in zip(*chosen, strict=True)))
    order = np.argsort(together.latent, kind="stable")
    return Contexts(*(column[order] for column in together))


def strongest(found: Peaks, reading: Reading, n: int) -> Contexts:
    """The `n` strongest peaks of each latent that read differently."""
    first = _strongest(found, reading, n, n * SPARE)
    n_peaks = np.bincount(found.latent, minlength=1)
    n_kept = np.bincount(first.latent, minlength=len(n_peaks))
    # Where the strongest read too much the same, all are looked at.
    short = (n_kept < n) & (n_peaks > n * SPARE)
    if not short.any():
        return first
    again = _strongest(Peaks(*(column[short[found.latent]] for column in found)), reading, n, len(found.latent))
    keep = ~short[first.latent]
    both = Contexts(*(np.concatenate([a[keep], b]) for a, b in zip(first, again, strict=True)))
    order = np.argsort(both.latent, kind="stable")
    return Contexts(*(column[order] for column in both))


def _strongest(found: Peaks, reading: Reading, n: int, looked_at: int) -> Contexts:
    may = largest(found.latent, order_bits(found.value), looked_at)
    latent, value, place = found.latent[may], found.value[may], found.place[may]
    order = may[np.lexsort((place, -order_bits(value).astype(np.int64), latent))]
    early = order[ranks(found.latent[order]) < looked_at]
    keys = reading.keys(found.place[early])
    firsts, n_same = first_of_each(mixed(found.latent[early].astype(np.uint64), keys))
    kept = early[firsts]
    rank = ranks(found.latent[kept])
    kept, rank, n_same = kept[rank < n], rank[rank < n], n_same[rank < n]
    ones = np.ones(len(kept))
    band = np.full(len(kept), "top", dtype=object)
    return Contexts(found.latent[kept], band, rank, found.place[kept], found.value[kept], ones, n_same)


def equal_counts(found: Peaks, n_bands: int) -> np.ndarray:
    """`[n]` the band of each peak, 0 the weakest, such that a latent's bands hold equally many."""
    band = np.zeros(len(found.latent), np.int64)
    if not len(band):
        return band
    keys = joined(found.latent, order_bits(found.value))
    ordered = np.sort(keys)
    size = np.bincount(found.latent)
    start = np.cumsum(size) - size
    # As numpy.array_split: the first bands have one more where they cannot be equal.
    each, rest = size // n_bands, size % n_bands
    for number in range(1, n_bands):
        first = start + number * each + np.minimum(number, rest)
        weakest = ordered[np.minimum(first, len(ordered) - 1)]
        # Of equal ones those that come first belong to the band below.
        below = (first - np.searchsorted(ordered, weakest))[found.latent]
        tied = np.flatnonzero(keys == weakest[found.latent])
        band += keys >= weakest[found.latent]
        band[tied] -= ranks(found.latent[tied]) < below[tied]
    return band


def highest(found: Peaks, n_latents: int) -> np.ndarray:
    """`[n_latents]` the largest peak of each; 0 where there is none."""
    out = np.zeros(n_latents)
    first = begins(found.latent)
    if len(first):
        out[found.latent[first]] = np.maximum.reduceat(found.value, first)
    return out


def equal_widths(found: Peaks, n_bands: int, most: np.ndarray) -> np.ndarray:
    """`[n]` the band of each peak, 0 the weakest, such that a latent's bands divide (0, `most`] equally."""
    top = np.where(most > 0, most, 1.0)[found.latent]
    return np.clip(np.ceil(found.value / top * n_bands).astype(np.int64) - 1, 0, n_bands - 1)


def draw(found: Peaks, band: np.ndarray, reading: Reading, cfg: IndexConfig, first: int = 0) -> Contexts:
    """`cfg.per_band` peaks that read differently, at random from each band of each latent, counted from `first`."""
    group = found.latent * cfg.n_bands + band
    size = np.bincount(group, minlength=int(group.max(initial=-1)) + 1)
    priority = mixed(mixed(np.full(len(group), cfg.seed, np.uint64), group + first * cfg.n_bands), found.place)
    # Only those that may come first are looked at; all of a band in which too many of them read the same.
    may = priority < np.uint64(2**64 - 1) * np.minimum(1.0, cfg.per_band * SPARE / np.maximum(size, 1))[group]
    drawn = _draw(found, group, priority, np.flatnonzero(may), reading, cfg.per_band)
    short = np.bincount(group[drawn.place], minlength=len(size)) < np.minimum(cfg.per_band, size)
    cut = short & (np.bincount(group[may], minlength=len(size)) < size)
    if cut.any():
        again = _draw(found, group, priority, np.flatnonzero(cut[group]), reading, cfg.per_band)
        keep = ~cut[group[drawn.place]]
        drawn = _Drawn(*(np.concatenate([a[keep], b]) for a, b in zip(drawn, again, strict=True)))
    at = drawn.place
    # Within a band from strong to weak.
    order = np.lexsort((found.place[at], -order_bits(found.value[at]).astype(np.int64), group[at]))
    at, n_same = at[order], drawn.n_same[order]
    n_drawn = np.bincount(group[at], minlength=len(size))
    weight = (size / np.maximum(n_drawn, 1))[group[at]]
    return Contexts(found.latent[at], band[at], ranks(group[at]), found.place[at], found.value[at], weight, n_same)


class _Drawn(NamedTuple):
    place: np.ndarray
    """Indices of the peaks drawn."""
    n_same: np.ndarray


def _draw(found: Peaks, group: np.ndarray, priority: np.ndarray, of: np.ndarray, reading: Reading, n: int) -> _Drawn:
    order = of[np.lexsort((priority[of], group[of]))]
    firsts, n_same = first_of_each(mixed(group[order].astype(np.uint64), reading.keys(found.place[order])))
    rank = ranks(group[order][firsts])
    return _Drawn(order[firsts][rank < n], n_same[rank < n])


@dataclass(frozen=True)
class Misses:
    """Near misses of the latents of a range."""

    value: np.ndarray
    """`[n_latents, n]` pre-activations, highest first."""
    place: np.ndarray
    """`[n_latents, n]`; −1 where there is none."""


def complete(events: LatentEvents, latent: np.ndarray, places: np.ndarray, tokens: TokenMap, seed: int) -> np.ndarray:
    """`[n]` bool: whether all of a latent's events in the sequence of a place are kept, so that a window shows them."""
    if not events.shift.any():
        return np.ones(len(places), bool)
    seq = tokens.positions(places)[0].astype(np.int64)
    held = (events.latent << PLACE_BITS) | events.positions(tokens)[0].astype(np.int64)
    return in_sample(seq, events.shift[latent], seed) | np.isin((latent << PLACE_BITS) | seq, held)


def near(misses: Misses, events: LatentEvents, reading: Reading, cfg: IndexConfig) -> Contexts:
    """The highest pre-activations of silent tokens, reading differently; `value` is the pre-activation."""
    n = cfg.n_near
    latent, column = np.nonzero(misses.place >= 0)
    shown = complete(events, latent, misses.place[latent, column], reading.tokens, cfg.seed)
    latent, column = latent[shown], column[shown]
    place, value = misses.place[latent, column], misses.value[latent, column]
    firsts, n_same = first_of_each(mixed(latent.astype(np.uint64), reading.keys(place)))
    rank = ranks(latent[firsts])
    kept, n_same, rank = firsts[rank < n], n_same[rank < n], rank[rank < n]
    band = np.full(len(kept), "near", dtype=object)
    return Contexts(latent[kept], band, rank, place[kept], value[kept], np.ones(len(kept)), n_same)


@dataclass(frozen=True)
class Twins:
    """Every occurrence of each token that counts."""

    places: np.ndarray
    """`[n]` places in order of their tokens."""
    bounds: np.ndarray
    """`[d_vocab + 1]`: token t is at `places[bounds[t]:bounds[t + 1]]`."""

    @classmethod
    def of(cls, tokens: TokenMap, counted: np.ndarray) -> "Twins":
        """`counted` is `[n_tokens]` bool."""
        places = np.flatnonzero(counted).astype(np.int32 if len(counted) < 2**31 else np.int64)
        ids = np.asarray(tokens.token_ids)[places]
        bounds = np.concatenate([[0], np.cumsum(np.bincount(ids))])
        return cls(places[np.argsort(ids, kind="stable")], bounds)


def silent(active: Contexts, events: LatentEvents, twins: Twins, reading: Reading, cfg: IndexConfig) -> Contexts:
    """Places at which a latent is silent on tokens on which it fires elsewhere.

    The tokens are those of contexts drawn from its whole range. Of several occurrences one is taken at random, and one
    whose whole window is silent rather than another; none where it always fires on those tokens.
    """
    tokens, keys = reading.tokens, events.fired.keys()
    token = tokens.token_ids[active.place].astype(np.int64)
    lo, hi = twins.bounds[token], twins.bounds[token + 1]
    random = mixed(mixed(np.full(len(token), cfg.seed, np.uint64), active.latent + events.first), active.place)
    tries = np.stack([mixed(random, np.full(len(token), i)) for i in range(DRAWS)], axis=1)
    place = twins.places[lo[:, None] + (tries % np.maximum(hi - lo, 1).astype(np.uint64)[:, None]).astype(np.int64)]
    place = place.astype(np.int64)
    flat, latent = place.ravel(), np.repeat(active.latent, DRAWS)
    fires = _count_between(keys, latent, flat, flat + 1) > 0
    spans = tokens.spans(flat, cfg.half_window, cfg.half_window)
    beside = _count_between(keys, latent, spans.start, spans.stop) > 0
    hidden = ~complete(events, latent, flat, tokens, cfg.seed)
    score = np.where(fires | hidden, 2, beside.astype(np.int64)).reshape(-1, DRAWS)
    best = score.argmin(axis=1)
    found = score[np.arange(len(best)), best] < 2
    chosen, latent = place[np.arange(len(best)), best][found], active.latent[found]
    firsts, n_same = first_of_each(mixed(latent.astype(np.uint64), reading.keys(chosen)))
    rank = ranks(latent[firsts])
    firsts, n_same, rank = firsts[rank < cfg.n_silent], n_same[rank < cfg.n_silent], rank[rank < cfg.n_silent]
    latent, chosen = latent[firsts], chosen[firsts]
    weight = _silent_occurrences(latent, tokens.token_ids[chosen].astype(np.int64), events, twins, tokens)
    band, zeros = np.full(len(latent), "silent", dtype=object), np.zeros(len(latent), np.float32)
    return Contexts(latent, band, rank, chosen, zeros, weight, n_same)


def _silent_occurrences(
    latent: np.ndarray, token: np.ndarray, events: LatentEvents, twins: Twins, tokens: TokenMap
) -> np.ndarray:
    """`[n]` how many silent occurrences of its token each context stands for."""
    pairs, of, n_chosen = np.unique((latent << 32) | token, return_inverse=True, return_counts=True)
    fired = (events.fired.latent << 32) | tokens.token_ids[events.fired.place].astype(np.int64)
    at = np.searchsorted(pairs, fired)
    own = (at < len(pairs)) & (pairs[np.minimum(at, len(pairs) - 1)] == fired) if len(pairs) else np.zeros(0, bool)
    n_fired = np.bincount(at[own], minlength=len(pairs))
    n_seen = np.diff(twins.bounds)[pairs & 0xFFFFFFFF]
    return ((n_seen - n_fired) / n_chosen)[of]


def _count_between(keys: np.ndarray, latent: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """`[n]` how many of a latent's places, as `Runs.keys` has them, are `start <= place < stop`."""
    base = latent.astype(np.int64) << PLACE_BITS
    return np.searchsorted(keys, base | stop) - np.searchsorted(keys, base | start)


def columns(chosen: Contexts, events: LatentEvents, tokens: TokenMap, cfg: IndexConfig) -> dict[str, Any]:
    """The columns of the index's `contexts` table."""
    seq, pos = tokens.positions(chosen.place)
    spans = tokens.spans(chosen.place, cfg.half_window, cfg.half_window)
    base, keys = chosen.latent.astype(np.int64) << PLACE_BITS, events.keys()
    low, high = np.searchsorted(keys, base | spans.start), np.searchsorted(keys, base | spans.stop)
    offsets = np.concatenate([[0], np.cumsum(high - low)])
    entry = np.repeat(low - offsets[:-1], high - low) + np.arange(offsets[-1])
    at = events.place[entry] - np.repeat(spans.start, high - low)
    begin, end = tokens.char_start[spans.start], tokens.char_end[spans.stop - 1]
    return {
        "latent": chosen.latent + events.first,
        "band": chosen.band,
        "rank": chosen.rank,
        "seq": seq,
        "pos": pos,
        "value": chosen.value,
        "start": pos + (spans.start - chosen.place),
        "stop": pos + (spans.stop - chosen.place),
        "doc_id": tokens.documents(chosen.place),
        "char_start": begin,
        "char_end": end,
        "weight": chosen.weight,
        "n_same": chosen.n_same,
        "seed": np.full(len(pos), cfg.seed),
        "active_at": _lists(offsets, at, pa.int16()),
        "activations": _lists(offsets, events.value[entry], pa.float32()),
    }


def _lists(offsets: np.ndarray, values: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values).cast(kind))
