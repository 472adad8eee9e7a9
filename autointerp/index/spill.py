"""What a window leaves behind: its events by token, which stay, and by latent, until parts are made of all windows.

A latent that fires on a large share of all tokens would take more room than all others together. Of such a latent the
events of a sample of sequences are kept, chosen by a hash of `seq`, so that the same sequences are in the sample of
every window and every latent; and those of the sequences that hold its strongest peaks. A sample at half the rate is a
subset, which is how windows that chose different rates are brought to one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from autointerp.index.encode import Codes, NearMisses
from autointerp.index.groups import begins
from store.codes import codes_path
from store.errors import UsageError
from store.files import whole_file
from store.token_map import TokenMap

SPILL = ".spill"
MAX_SHIFT = 32
PEAKS = 16
"""Peaks whose sequences stay for every context that is shown: several may read the same."""


class Kept(NamedTuple):
    """A window's events in order of latent and place."""

    offsets: np.ndarray
    """`[d_sae + 1]`: latent i has entries `offsets[i]:offsets[i + 1]`."""
    place: np.ndarray
    """`[n]` int64, of the harvest."""
    value: np.ndarray
    """`[n]` float32."""
    n_fired: np.ndarray
    """`[d_sae]` events, kept or not."""
    seen: np.ndarray
    """`[d_sae]` the same of this window and all before it."""
    shift: np.ndarray
    """`[d_sae]` uint8: one sequence of 2^shift is in the sample; 0 where all are kept."""
    sums: np.ndarray
    """`[3, d_sae]` float64: of a, a² and a³ over all events, kept or not."""
    max: np.ndarray
    """`[d_sae]` float32, of all events; −∞ where there is none."""
    min: np.ndarray


def by_latent(codes: Codes, d_sae: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`[d_sae + 1]` offsets, and token and value of each event in order of latent and token."""
    short = codes.latents.astype(np.uint16) if d_sae <= 2**16 else codes.latents  # 16 bits are sorted by radix
    order = short.argsort(kind="stable")
    token = np.repeat(np.arange(len(codes.offsets) - 1), np.diff(codes.offsets))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(codes.latents, minlength=d_sae))])
    return offsets, token[order], codes.values[order]


def in_sample(seq: np.ndarray, shift: np.ndarray | int, seed: int) -> np.ndarray:
    """`[n]` bool: whether a sequence is among the one in 2^shift that are sampled; nested in `shift`."""
    x = (seq.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    low = (x ^ (x >> np.uint64(31))) & np.uint64(2**MAX_SHIFT - 1)
    return low < (np.uint64(2**MAX_SHIFT) >> np.asarray(shift, np.uint64))


@dataclass(frozen=True)
class Thinning:
    """How events of latents that fire too often are left out."""

    max_events: int
    n_top: int
    seed: int
    n_tokens: int
    """Of the harvest: what `max_events` is spread over."""

    def kept(self, codes: Codes, tokens: TokenMap, first: int, d_sae: int, seen: np.ndarray | None = None) -> Kept:
        """The window's events; `first` is the place of its first token, `seen` what fired in all windows before.

        A latent is left whole as long as it has not fired too often: one that fires in a single window may do so.
        """
        offsets, token, value = by_latent(codes, d_sae)
        place = token + first
        wide = value.astype(np.float64)
        powers = (wide, wide * wide, wide * wide * wide)
        sums = np.stack([_segments(np.add, power, offsets, 0.0) for power in powers])
        largest = _segments(np.maximum, value, offsets, -np.inf).astype(np.float32)
        smallest = _segments(np.minimum, value, offsets, np.inf).astype(np.float32)
        allowed = max(1.0, self.max_events * (len(codes.counted) / self.n_tokens))
        n_fired = n = np.diff(offsets)
        seen = n_fired if seen is None else seen + n_fired
        often = np.where(seen > self.max_events, n / allowed, 1.0)
        shift = np.ceil(np.log2(np.maximum(often, 1.0))).astype(np.uint8)
        keep = np.ones(len(place), bool)
        for latent in np.flatnonzero(shift).tolist():
            own = slice(offsets[latent], offsets[latent + 1])
            keep[own] = self.sampled(tokens, place[own], value[own], int(shift[latent]))
        if not keep.all():
            n = np.diff(np.concatenate([[0], np.cumsum(keep)])[offsets])
            offsets, place, value = np.concatenate([[0], np.cumsum(n)]), place[keep], value[keep]
        return Kept(offsets, place, value, n_fired, seen, shift, sums, largest, smallest)

    def sampled(self, tokens: TokenMap, place: np.ndarray, value: np.ndarray, shift: int) -> np.ndarray:
        """`[n]` bool: which of one latent's events stay: those of the sample, and of its strongest peaks' sequences."""
        seq, piece = tokens.positions(place)[0], tokens.pieces(place)
        first = begins(piece)
        highest = np.maximum.reduceat(value, first)
        strongest = seq[first[np.argsort(-highest, kind="stable")[: PEAKS * self.n_top]]]
        return in_sample(seq, shift, self.seed) | np.isin(seq, strongest)


def _segments(function: np.ufunc, values: np.ndarray, offsets: np.ndarray, empty: float) -> np.ndarray:
    """`function` reduced over each of the runs of `values` that `offsets` bound."""
    out = np.full(len(offsets) - 1, empty)
    has_any = np.diff(offsets) > 0
    if has_any.any():
        out[has_any] = function.reduceat(values, offsets[:-1][has_any])
    return out


class Spill:
    """The files of one index's windows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def codes_path(self, window: int) -> Path:
        """What fires on each token of a window."""
        return codes_path(self.folder, window)

    def _path(self, window: int) -> Path:
        return self.folder / SPILL / f"{window:05d}.safetensors"

    def has(self, window: int) -> bool:
        """Whether the window was done."""
        return self._path(window).exists() and self.codes_path(window).exists()

    def write(self, window: int, codes: Codes, kept: Kept, misses: NearMisses | None, d_sae: int) -> None:
        """Keep a window's events; the file by latent is the last. What lasts is not written again."""
        small = np.uint16 if d_sae <= 2**16 else np.uint32
        if not self.codes_path(window).exists():
            lasting = {"latents": codes.latents.astype(small), "offsets": codes.offsets, "counted": codes.counted}
            _save(self.codes_path(window), lasting)
        arrays = kept._asdict() | {"by_class": codes.by_class}
        if misses is not None:
            arrays |= {"miss_value": misses.value.numpy(), "miss_place": misses.place.numpy()}
        _save(self._path(window), arrays)

    def read(self, window: int, *names: str) -> list[np.ndarray]:
        """Some of a window's arrays, whole."""
        with self._opened(window) as file:
            return [file.get_tensor(name) for name in names]

    def slices(self, window: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Place and value of events `start` to `stop`."""
        if start == stop:  # a slice of nothing at the end of a tensor is refused
            return np.empty(0, np.int64), np.empty(0, np.float32)
        with self._opened(window) as file:
            place, value = (file.get_slice(name)[start:stop] for name in ("place", "value"))
        return place, value

    def misses(self, window: int) -> NearMisses | None:
        """The near misses of all windows up to this one."""
        with self._opened(window) as file:
            if "miss_value" not in file.keys():  # noqa: SIM118 - it is no dict
                return None
            import torch

            found = NearMisses(1, 1)
            found.value = torch.from_numpy(file.get_tensor("miss_value"))
            found.place = torch.from_numpy(file.get_tensor("miss_place"))
            return found

    def _opened(self, window: int) -> safe_open:
        path = self._path(window)
        try:
            return safe_open(path, "numpy")
        except (SafetensorError, FileNotFoundError) as error:
            raise UsageError(f"{path} is damaged ({error}): delete it and run `monosem index` again") from error


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with whole_file(path) as scratch:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, scratch)
