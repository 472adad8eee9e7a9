"""Events of a range of latents, put together from all windows: as many latents at a time as memory allows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from autointerp.index.spill import Spill, in_sample
from store.errors import UsageError
from store.token_map import TokenMap

EVENTS_PER_PART = 4_000_000
"""Events whose latents are worked on at a time: some 100 bytes of memory each."""
PLACE_BITS = 40
"""Of a key that holds a latent's number within its range and a place."""


@dataclass(frozen=True)
class Runs:
    """Places of each of some latents, ascending within a latent."""

    bounds: np.ndarray
    """`[n_latents + 1]`: latent i of the range has entries `bounds[i]:bounds[i + 1]`."""
    place: np.ndarray
    """`[n]` int64."""

    @property
    def n(self) -> np.ndarray:
        """`[n_latents]` entries."""
        return np.diff(self.bounds)

    @property
    def latent(self) -> np.ndarray:
        """`[n]` the number within the range of each entry's latent."""
        return np.repeat(np.arange(len(self.bounds) - 1), self.n)

    def keys(self) -> np.ndarray:
        """`[n]` ascending: latent and place in one."""
        return (self.latent << PLACE_BITS) | self.place


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
        return self.where(in_sample(tokens.positions(self.place)[0], self.shift[self.latent], seed))

    def where(self, keep: np.ndarray) -> "LatentEvents":
        """Those events for which `keep` is true."""
        bounds = np.concatenate([[0], np.cumsum(keep)])[self.bounds]
        return LatentEvents(bounds, self.place[keep], self.first, self.value[keep], self.shift, self.fired)


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


class LatentRange(NamedTuple):
    """Latents `start <= i < stop`."""

    start: int
    stop: int


def totals(spill: Spill, n_windows: int) -> Totals:
    """Of all windows."""
    names = ("offsets", "by_class", "n_fired", "sums", "max", "min", "shift")
    found = [spill.read(window, *names) for window in range(n_windows)]
    offsets, by_class, n_fired, sums, largest, smallest, shift = zip(*found, strict=True)
    return Totals(
        n_kept=np.sum([np.diff(each) for each in offsets], axis=0),
        n_fired=np.sum(n_fired, axis=0),
        by_class=np.sum(by_class, axis=0),
        sums=np.sum(sums, axis=0),
        max=np.maximum.reduce(largest),
        min=np.minimum.reduce(smallest),
        shift=np.maximum.reduce(shift),
    )


def ranges(n_kept: np.ndarray, most: int = EVENTS_PER_PART) -> list[LatentRange]:
    """Consecutive latents with `most` events together, or one alone that has more."""
    out, start, held = [], 0, 0
    for latent, n in enumerate(n_kept.tolist()):
        if held and held + n > most:
            out.append(LatentRange(start, latent))
            start, held = latent, 0
        held += n
    return [*out, LatentRange(start, len(n_kept))]


def gather(spill: Spill, n_windows: int, which: LatentRange, known: Totals, codes: "CodeFiles") -> LatentEvents:
    """The events of `which` from every window, a latent's in order of place."""
    shift = known.shift[which.start : which.stop]
    counts = np.stack([np.diff(_offsets(spill, window, which)) for window in range(n_windows)])
    bounds = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
    place, value = np.empty(bounds[-1], np.int64), np.empty(bounds[-1], np.float32)
    before = bounds[:-1].copy()
    for window in range(n_windows):
        offsets = _offsets(spill, window, which)
        own_place, own_value = spill.slices(window, int(offsets[0]), int(offsets[-1]))
        target = np.repeat(before - (offsets[:-1] - offsets[0]), counts[window]) + np.arange(len(own_place))
        place[target], value[target] = own_place, own_value
        before += counts[window]
    fired = Runs(bounds, place)
    if shift.any():
        fired = codes.fired(which, fired, shift > 0)
    return LatentEvents(bounds, place, which.start, value, shift, fired)


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
            offsets, latents, counted = self._read(window, "offsets", "latents", "counted")
            yield int(self._bounds[window]), offsets, latents, counted

    def _read(self, window: int, *names: str) -> list[np.ndarray]:
        path = self._spill.codes_path(window)
        try:
            with safe_open(path, "numpy") as file:
                return [file.get_tensor(name) for name in names]
        except (SafetensorError, FileNotFoundError) as error:
            raise UsageError(f"{path} is damaged ({error}): mend it with `monosem index --repair`") from error

    def counted(self) -> np.ndarray:
        """`[n_tokens]` bool: which tokens count."""
        return np.concatenate([counted for *_, counted in self.windows()])

    def fired(self, which: LatentRange, kept: Runs, thinned: np.ndarray) -> Runs:
        """Every place of the latents of `which`: for those `thinned` looked up, for the others what is kept."""
        keys = [kept.keys()[~thinned[kept.latent]]]
        for first, offsets, latents, _ in self.windows():
            own = np.flatnonzero((latents >= which.start) & (latents < which.stop))
            at = own[thinned[latents[own].astype(np.int64) - which.start]]
            place = np.searchsorted(offsets, at, "right") - 1 + first
            keys.append(((latents[at].astype(np.int64) - which.start) << PLACE_BITS) | place)
        found = np.sort(np.concatenate(keys))
        bounds = np.searchsorted(found, np.arange(len(kept.bounds)) << PLACE_BITS)
        return Runs(bounds, found & ((1 << PLACE_BITS) - 1))

    def beside(self, places: np.ndarray) -> Iterator["Beside"]:
        """Which latents fire on each of some places, a window at a time."""
        order = np.argsort(places, kind="stable")
        cuts = np.searchsorted(places[order], self._bounds)
        for window in np.flatnonzero(np.diff(cuts)).tolist():
            offsets, latents = self._read(window, "offsets", "latents")
            rows = order[cuts[window] : cuts[window + 1]]
            at = places[rows] - self._bounds[window]
            n = offsets[at + 1] - offsets[at]
            entry = np.repeat(offsets[at] - (np.cumsum(n) - n), n) + np.arange(n.sum())
            yield Beside(np.repeat(rows, n), latents[entry])


class Beside(NamedTuple):
    """Latents that fire on places."""

    which: np.ndarray
    """`[n]` index into the places that were asked for."""
    latent: np.ndarray
    """`[n]`."""
