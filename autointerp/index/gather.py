"""Events of a range of latents, put together from all windows: as many latents at a time as memory allows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from autointerp.index.spill import Spill, Thinning, in_sample
from store.codes import MappedCodes, map_codes
from store.token_map import TokenMap

EVENTS_PER_PART = 4_000_000
"""Events whose latents are worked on at a time, of a short harvest."""
BYTES_PER_EVENT, BYTES_PER_TOKEN = 100, 16
"""Memory that work on an event takes, and what is held of every token meanwhile, about."""
MOST_WIDE = 64
"""Latents in a line of `Lines` at most."""
PLACE_BITS = 40
"""Of a key that holds a latent's number within its range and a place."""


@dataclass(frozen=True)
class Runs:
    """Places of each of some latents, ascending within a latent."""

    bounds: np.ndarray
    """`[n_latents + 1]`: latent i of the range has entries `bounds[i]:bounds[i + 1]`."""
    place: np.ndarray
    """`[n]` int64."""
    piece: np.ndarray
    """`[n]` int32 the piece of each place, looked up once."""

    @property
    def n(self) -> np.ndarray:
        """`[n_latents]` entries."""
        return np.diff(self.bounds)

    @cached_property
    def latent(self) -> np.ndarray:
        """`[n]` the number within the range of each entry's latent."""
        return np.repeat(np.arange(len(self.bounds) - 1), self.n)

    def keys(self) -> np.ndarray:
        """`[n]` ascending: latent and place in one."""
        return (self.latent << PLACE_BITS) | self.place

    def documents(self, tokens: TokenMap) -> np.ndarray:
        """`[n]` the document of each place."""
        return tokens.piece_doc[self.piece]

    def positions(self, tokens: TokenMap) -> tuple[np.ndarray, np.ndarray]:
        """`seq` and `pos` of each place."""
        row = tokens.piece_row[self.piece]
        return tokens.seqs[row], (self.place - tokens.offsets[row]).astype(np.int32)


def runs_of(bounds: np.ndarray, place: np.ndarray, tokens: TokenMap) -> Runs:
    """Runs whose pieces are looked up."""
    return Runs(bounds, place, tokens.pieces(place).astype(np.int32))


@dataclass(frozen=True)
class LatentEvents(Runs):
    """The events kept of latents `first`, `first` + 1, …"""

    first: int
    value: np.ndarray
    """`[n]` float32."""
    shift: np.ndarray
    """`[n_latents]`: one sequence in 2^shift is in the sample of a latent; 0 where every event is kept."""
    fired: Runs
    """Every place on which each fires, kept or not."""

    @property
    def n_latents(self) -> int:
        """Of the range."""
        return len(self.bounds) - 1

    def sampled(self, tokens: TokenMap, seed: int) -> "LatentEvents":
        """Without the strongest that were kept beyond the sample: what stands for all events, each for 2^shift."""
        if not self.shift.any():
            return self
        return self.where(in_sample(self.positions(tokens)[0], self.shift[self.latent], seed))

    def where(self, keep: np.ndarray) -> "LatentEvents":
        """Those events for which `keep` is true."""
        bounds = np.concatenate([[0], np.cumsum(keep)])[self.bounds]
        return LatentEvents(
            bounds, self.place[keep], self.piece[keep], self.first, self.value[keep], self.shift, self.fired
        )


class Totals(NamedTuple):
    """Exact figures of every latent over all windows, whatever was kept."""

    n_kept: np.ndarray
    """`[d_sae]`."""
    n_fired: np.ndarray
    """`[d_sae]` tokens that count on which it fires."""
    by_class: np.ndarray
    """`[n_classes, d_sae]`: tokens of each class on which it fires, those that do not count included."""
    sums: np.ndarray
    """`[3, d_sae]` of a, a² and a³."""
    max: np.ndarray
    min: np.ndarray
    shift: np.ndarray

    def and_those(self, other: "Totals") -> "Totals":
        """Of the windows of both."""
        added = {name: getattr(self, name) + getattr(other, name) for name in ("n_kept", "n_fired", "by_class", "sums")}
        largest = {name: np.maximum(getattr(self, name), getattr(other, name)) for name in ("max", "shift")}
        return Totals(**added, **largest, min=np.minimum(self.min, other.min))


class LatentRange(NamedTuple):
    """Latents `start <= i < stop`."""

    start: int
    stop: int


def totals(spill: Spill, n_windows: int) -> Totals:
    """Of all windows."""
    names = ("offsets", "by_class", "n_fired", "sums", "max", "min", "shift")
    found = None
    for window in range(n_windows):
        offsets, by_class, n_fired, sums, largest, smallest, shift = spill.read(window, *names)
        own = Totals(np.diff(offsets), n_fired, by_class, sums, largest, smallest, shift)
        found = own if found is None else found.and_those(own)
    if found is None:
        raise ValueError("n_windows=0: an index has at least one window")
    return found


def events_together(n_tokens: int) -> int:
    """Events to be worked on at a time: what a longer harvest's tokens take is taken from them."""
    return max(EVENTS_PER_PART // 4, EVENTS_PER_PART - n_tokens * BYTES_PER_TOKEN // BYTES_PER_EVENT)


def ranges(n_held: np.ndarray, most: int = EVENTS_PER_PART) -> list[LatentRange]:
    """Consecutive latents with `most` entries held together, or one alone that has more."""
    out, start, held = [], 0, 0
    for latent, n in enumerate(n_held.tolist()):
        if held and held + n > most:
            out.append(LatentRange(start, latent))
            start, held = latent, 0
        held += n
    return [*out, LatentRange(start, len(n_held))]


def gather(
    spill: Spill, n_windows: int, which: LatentRange, known: Totals, codes: "CodeFiles", thinning: Thinning
) -> LatentEvents:
    """The events of `which` from every window, a latent's in order of place, thinned alike in all of them."""
    shift = known.shift[which.start : which.stop]
    offsets = [_offsets(spill, window, which) for window in range(n_windows)]
    counts = [np.diff(each) for each in offsets]
    bounds = np.concatenate([[0], np.cumsum(np.sum(counts, axis=0))])
    place, value = np.empty(bounds[-1], np.int64), np.empty(bounds[-1], np.float32)
    before = bounds[:-1].copy()
    for window, (own, n) in enumerate(zip(offsets, counts, strict=True)):
        own_place, own_value = spill.slices(window, int(own[0]), int(own[-1]))
        target = np.repeat(before - (own[:-1] - own[0]), n) + np.arange(len(own_place))
        place[target], value[target] = own_place, own_value
        before += n
    keep = np.ones(len(place), bool)
    for latent in np.flatnonzero(shift).tolist():
        own = slice(bounds[latent], bounds[latent + 1])
        keep[own] = thinning.sampled(codes.tokens, place[own], value[own], int(shift[latent]))
    if not keep.all():
        bounds = np.concatenate([[0], np.cumsum(keep)])[bounds]
        place, value = place[keep], value[keep]
    kept = fired = runs_of(bounds, place, codes.tokens)
    if shift.any():
        fired = codes.fired(which, fired, shift > 0)
    return LatentEvents(bounds, place, kept.piece, which.start, value, shift, fired)


def _offsets(spill: Spill, window: int, which: LatentRange) -> np.ndarray:
    (offsets,) = spill.read(window, "offsets")
    return offsets[which.start : which.stop + 1]


class CodeFiles:
    """Which latents fire on any token: the codes of all windows, mapped into memory."""

    def __init__(self, spill: Spill, tokens: TokenMap) -> None:
        self._spill, self.tokens = spill, tokens
        self._bounds = tokens.windows

    def windows(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Of each window the place of its first token, and `offsets`, `latents` and `counted` of its tokens."""
        for window in range(len(self._bounds) - 1):
            codes = self._map(window)
            yield int(self._bounds[window]), codes.offsets, codes.latents, codes.counted

    def _map(self, window: int) -> MappedCodes:
        return map_codes(self._spill.codes_path(window))

    def counted(self) -> np.ndarray:
        """`[n_tokens]` bool: which tokens count."""
        return np.concatenate([self._map(window).counted for window in range(len(self._bounds) - 1)])

    def fired(self, which: LatentRange, kept: Runs, thinned: np.ndarray) -> Runs:
        """Every place of the latents of `which`: for those `thinned` looked up, for the others what is kept."""
        looked_up = np.flatnonzero(thinned).tolist()
        found: list[list[np.ndarray]] = [[] for _ in looked_up]
        for first, offsets, latents, _ in self.windows():
            for own, number in zip(found, looked_up, strict=True):
                at = np.flatnonzero(latents == latents.dtype.type(which.start + number))
                own.append(np.searchsorted(offsets, at, "right") - 1 + first)
        runs = [kept.place[kept.bounds[i] : kept.bounds[i + 1]] for i in range(len(thinned))]
        for number, own in zip(looked_up, found, strict=True):
            runs[number] = np.concatenate(own)
        bounds = np.concatenate([[0], np.cumsum([len(run) for run in runs])])
        return runs_of(bounds, np.concatenate(runs), self.tokens)

    def lines(self, most: int) -> Iterator["Lines"]:
        """The codes of all tokens, some windows with about `most` entries at a time."""
        held: list[tuple[np.ndarray, np.ndarray]] = []
        first, n_held = 0, 0
        for place, offsets, latents, _ in self.windows():
            if held and n_held + len(latents) > most:
                yield Lines.of(first, held)
                held, n_held, first = [], 0, place
            held.append((offsets, latents))
            n_held += len(latents)
        yield Lines.of(first, held)


@dataclass(frozen=True)
class Lines:
    """What fires on each of some tokens in a row, in lines of one length, to be counted line by line."""

    first: int
    """Place of the first token."""
    begins: np.ndarray
    """`[n_tokens + 1]`: token i has lines `begins[i]:begins[i + 1]`."""
    n: np.ndarray
    """`[n_tokens]` latents that fire."""
    latents: np.ndarray
    """`[n_lines, width]`: a token's last line is filled up with latent 0."""

    @property
    def stop(self) -> int:
        """One past the last place."""
        return self.first + len(self.n)

    @classmethod
    def of(cls, first: int, windows: Sequence[tuple[np.ndarray, np.ndarray]]) -> "Lines":
        """Of neighbouring windows' `offsets` and `latents`; `first` is the place of the first token."""
        n = np.concatenate([np.diff(offsets) for offsets, _ in windows])
        width = int(np.clip(np.median(n[n > 0]), 1, MOST_WIDE)) if n.any() else 1
        n_lines = -(-n // width)
        begins = np.concatenate([[0], np.cumsum(n_lines)])
        if (n == n_lines * width).all():
            return cls(first, begins, n, np.concatenate([latents for _, latents in windows]).reshape(-1, width))
        lines = np.zeros((begins[-1], width), windows[0][1].dtype)
        token = 0
        for offsets, latents in windows:
            own = np.diff(offsets)
            shift = begins[token : token + len(own)] * width - offsets[:-1]
            lines.ravel()[np.arange(len(latents)) + np.repeat(shift, own)] = latents
            token += len(own)
        return cls(first, begins, n, lines)

    def counts(self, places: np.ndarray, d_sae: int) -> np.ndarray:
        """`[d_sae]` on how many of the places each latent fires."""
        token = places - self.first
        begin, n_lines = self.begins[token], self.begins[token + 1] - self.begins[token]
        if (n_lines == 1).all():
            lines = begin
        else:
            lines = np.repeat(begin - (np.cumsum(n_lines) - n_lines), n_lines) + np.arange(n_lines.sum())
        found = np.bincount(self.latents[lines].ravel(), minlength=d_sae)
        found[0] -= len(lines) * self.latents.shape[1] - self.n[token].sum()
        return found
