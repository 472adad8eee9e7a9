"""One index of two that are matched: its latents' firings range by range, and what fires on each token, with values."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from autointerp.index.gather import CodeFiles, LatentRange, runs_of
from autointerp.index.spill import Spill
from store.codes import CodeMap
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index import part_path
from store.token_map import TokenMap

CHUNK_EVENTS = 16_000_000
"""Events, of consecutive tokens, that are multiplied at a time."""


class Firings(NamedTuple):
    """Where each of some consecutive latents fires, whichever events are kept."""

    first: int
    bounds: np.ndarray
    """`[n + 1]`: latent `first` + i has entries `bounds[i]:bounds[i + 1]`."""
    place: np.ndarray
    """`[n_events]` int64."""
    value: np.ndarray
    """`[n_events]` float64; 0 for a latent whose events are a sample."""

    @property
    def latent(self) -> np.ndarray:
        """`[n_events]` each entry's latent, counted from `first`."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))

    def where(self, keep: np.ndarray) -> "Firings":
        """Those entries for which `keep` is true."""
        bounds = np.concatenate([[0], np.cumsum(keep)])[self.bounds]
        return Firings(self.first, bounds, self.place[keep], self.value[keep])

    def rows(self, start: int, stop: int) -> "Firings":
        """Of latents `start` to `stop`, counted from `first`."""
        low, high = self.bounds[start], self.bounds[stop]
        bounds = self.bounds[start : stop + 1] - low
        return Firings(self.first + start, bounds, self.place[low:high], self.value[low:high])


class Side:
    """One of the two indexes."""

    def __init__(self, index: FeatureIndex) -> None:
        """Read which latents there are.

        Raises:
            UsageError: its tokens are damaged.
        """
        self.index = index
        self.tokens: TokenMap = index.tokens
        self.codes = CodeFiles(Spill(index.folder), index.tokens)
        self.code_map = CodeMap(index.folder, index.tokens.windows)
        table = index.arrow("SELECT event_share, n_events, part FROM latents ORDER BY latent")
        share, self._n_events, self._part = (table.column(name).to_numpy() for name in table.column_names)
        self.exact: np.ndarray = share == 1
        """`[d_sae]` bool: all its events are kept, so that its values are known wherever it fires."""

    @property
    def d_sae(self) -> int:
        """Latents."""
        return len(self.exact)

    @cached_property
    def counted(self) -> np.ndarray:
        """`[n_tokens]` bool: the token counts."""
        return self.codes.counted()

    def n_fired(self, counted: np.ndarray) -> np.ndarray:
        """`[d_sae]` tokens of those `counted` on which each latent fires."""
        total = np.zeros(self.d_sae, np.int64)
        for first, offsets, latents, _ in self.codes.windows():
            keep = np.repeat(counted[first : first + len(offsets) - 1], np.diff(offsets))
            total += np.bincount(latents[keep], minlength=self.d_sae)
        return total

    @property
    def n_parts(self) -> int:
        """Ranges of latents that lie together."""
        return int(self._part.max()) + 1

    def n_latents(self, number: int) -> int:
        """Latents of one range."""
        return int((self._part == number).sum())

    def parts_of(self, latents: np.ndarray) -> list[int]:
        """The ranges that hold some latents."""
        return np.unique(self._part[latents]).tolist()

    def firings(self, number: int) -> Firings:
        """Of the latents of one range.

        Raises:
            UsageError: a file of the index is damaged.
        """
        own = np.flatnonzero(self._part == number)
        which = LatentRange(int(own[0]), int(own[-1]) + 1)
        table = self._events(number, ["seq", "pos", "value"])
        seq, pos, value = (table.column(name).to_numpy() for name in table.column_names)
        kept = runs_of(np.concatenate([[0], np.cumsum(self._n_events[own])]), self.tokens.places(seq, pos), self.tokens)
        thinned = ~self.exact[own]
        if not thinned.any():
            return Firings(which.start, kept.bounds, kept.place, value.astype(np.float64))
        fired = self.codes.fired(which, kept, thinned)
        values = np.zeros(len(fired.place))
        values[~thinned[fired.latent]] = value[~thinned[kept.latent]]
        return Firings(which.start, fired.bounds, fired.place, values)

    def _events(self, number: int, columns: list[str]) -> pa.Table:
        path = part_path(self.index.folder, "events", number)
        try:
            return pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowException) as error:
            why = str(error).splitlines()[0]
            name = self.index.folder.name
            raise UsageError(
                f"{path} is damaged or missing ({why}): mend it with `monosem index --repair {name}`"
            ) from error

    def by_token(self, scratch: Path) -> "ByToken":
        """The same events, token after token; their values are laid out in files of the folder `scratch`."""
        scratch.mkdir(parents=True, exist_ok=True)
        flat = self._values_by_latent(scratch / "by_latent.f32")
        n_codes = sum(len(latents) for _, _, latents, _ in self.codes.windows())
        values = np.memmap(scratch / "values.f32", np.float32, "w+", shape=(max(n_codes, 1),))
        latents = np.memmap(scratch / "latents.i32", np.int32, "w+", shape=(max(n_codes, 1),))
        offsets, n_seen = [np.zeros(1, np.int64)], 0
        unread = np.concatenate([[0], np.cumsum(self._n_events)])[:-1]
        for _, bounds, own, _ in self.codes.windows():
            here = slice(n_seen, n_seen + len(own))
            values[here], latents[here] = self._values_of(own, flat, unread), own
            offsets.append(bounds[1:] + n_seen)
            n_seen += len(own)
        return ByToken(np.concatenate(offsets), latents[:n_seen], values[:n_seen], self.d_sae)

    def _values_by_latent(self, path: Path) -> np.ndarray:
        total, done = int(self._n_events.sum()), 0
        flat = np.memmap(path, np.float32, "w+", shape=(max(total, 1),))
        for number in range(self.n_parts):
            value = self._events(number, ["value"]).column("value").to_numpy()
            flat[done : done + len(value)] = value
            done += len(value)
        return flat

    def _values_of(self, latents: np.ndarray, flat: np.ndarray, unread: np.ndarray) -> np.ndarray:
        """A window's values in order of token; `unread` says where each latent's next ones lie, and is moved on."""
        order = np.argsort(latents, kind="stable")
        n = np.bincount(latents, minlength=self.d_sae)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(n) - n, n)
        known = self.exact[latents[order]]
        values = np.zeros(len(latents), np.float32)
        values[order[known]] = flat[(np.repeat(unread, n) + rank)[known]]
        unread += n
        return values


class ByToken(NamedTuple):
    """What fires on each token, of all tokens that count."""

    offsets: np.ndarray
    """`[n_tokens + 1]` int64."""
    latents: np.ndarray
    """`[n_events]` int32."""
    values: np.ndarray
    """`[n_events]` float32; 0 for a latent whose events are a sample."""
    d_sae: int

    @property
    def n_tokens(self) -> int:
        """All of the harvest's."""
        return len(self.offsets) - 1

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges of tokens with few enough events, or one token alone."""
        start = 0
        while start < self.n_tokens:
            stop = int(np.searchsorted(self.offsets, self.offsets[start] + CHUNK_EVENTS, "right")) - 1
            stop = max(stop, start + 1)
            yield start, stop
            start = stop

    def matrix(self, start: int, stop: int) -> sparse.csr_array:
        """`[stop - start, d_sae]` float64 activations."""
        own = slice(self.offsets[start], self.offsets[stop])
        bounds = (self.offsets[start : stop + 1] - self.offsets[start]).astype(np.int32)
        shape = (stop - start, self.d_sae)
        return sparse.csr_array((self.values[own].astype(np.float64), self.latents[own], bounds), shape=shape)
