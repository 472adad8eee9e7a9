"""Which latents fire on each token: an index's files of codes, mapped into memory a window at a time."""

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from store.errors import UsageError

CODES = "codes"
DTYPES = {"U16": np.uint16, "U32": np.uint32, "I64": np.int64, "BOOL": np.bool_}
"""Types of safetensors that a file of codes may hold."""
MAX_HEADER = 65_536
MOST_OPEN = 256
"""Files mapped at once: each takes a file descriptor."""


class MappedCodes(NamedTuple):
    """What fires on the tokens of one window."""

    offsets: np.ndarray
    """`[n_tokens + 1]` int64: token i has entries `offsets[i]:offsets[i + 1]`."""
    latents: np.ndarray
    """`[n]` uint16 or uint32."""
    counted: np.ndarray
    """`[n_tokens]` bool: which tokens count."""


class FiredOn(NamedTuple):
    """What fires on some places, in the order in which they were asked for."""

    bounds: np.ndarray
    """`[n_places + 1]` int64: place i has entries `bounds[i]:bounds[i + 1]`."""
    latents: np.ndarray
    """`[n]`."""


def codes_path(folder: Path, window: int) -> Path:
    """The file of a window's codes in the folder of an index."""
    return folder / CODES / f"{window:05d}.safetensors"


def map_codes(path: Path) -> MappedCodes:
    """A file of codes, none of it read yet.

    Raises:
        UsageError: it is missing or damaged.
    """
    try:
        return MappedCodes(*_mapped(path))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(f"{path} is damaged ({error}): mend it with `monosem index --repair`") from error


def _mapped(path: Path) -> list[np.ndarray]:
    data = np.asarray(np.memmap(path, mode="r", dtype=np.uint8))
    n_header = int(data[:8].view("<u8")[0]) if len(data) >= 8 else MAX_HEADER + 1
    if n_header > min(MAX_HEADER, len(data) - 8):
        raise ValueError("it is no file of codes")
    header, body = json.loads(data[8 : 8 + n_header].tobytes()), data[8 + n_header :]
    arrays = []
    for name in MappedCodes._fields:
        start, stop = header[name]["data_offsets"]
        dtype = np.dtype(DTYPES[header[name]["dtype"]])
        if not 0 <= start <= stop <= len(body) or header[name]["shape"] != [(stop - start) // dtype.itemsize]:
            raise ValueError(f"{name} does not lie in it")
        arrays.append(body[start:stop].view(dtype))
    return arrays


class CodeMap:
    """The codes of all windows of an index."""

    def __init__(self, folder: Path, windows: np.ndarray) -> None:
        """MappedCodes of the index in `folder`, whose windows begin at the places `windows` `[n_windows + 1]`."""
        self._windows = windows
        self._open = lru_cache(MOST_OPEN)(lambda window: map_codes(codes_path(folder, window)))

    def counted(self, places: np.ndarray) -> np.ndarray:
        """`[n]` bool: which of some places count."""
        out = np.zeros(len(places), bool)
        for window, rows in self._by_window(places):
            out[rows] = self._open(window).counted[places[rows] - self._windows[window]]
        return out

    def fired(self, places: np.ndarray) -> FiredOn:
        """What fires on each of some places `[n]`, in any order."""
        n, grouped = np.zeros(len(places), np.int64), list(self._by_window(places))
        kind = self._open(grouped[0][0]).latents.dtype if grouped else np.dtype(np.uint16)
        for window, rows in grouped:
            at = places[rows] - self._windows[window]
            offsets = self._open(window).offsets
            n[rows] = offsets[at + 1] - offsets[at]
        bounds = np.concatenate([[0], np.cumsum(n)])
        latents = np.empty(bounds[-1], kind)
        for window, rows in grouped:
            codes = self._open(window)
            source = codes.offsets[places[rows] - self._windows[window]]
            own = runs_from(source, n[rows])
            latents[runs_from(bounds[rows], n[rows])] = codes.latents[own]
        return FiredOn(bounds, latents)

    def _by_window(self, places: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Numbers of windows, and which of the places lie in each."""
        order = np.argsort(places, kind="stable")
        cuts = np.searchsorted(places[order], self._windows)
        return [(w, order[cuts[w] : cuts[w + 1]]) for w in np.flatnonzero(np.diff(cuts)).tolist()]


def runs_from(start: np.ndarray, n: np.ndarray) -> np.ndarray:
    """`start[0], start[0] + 1, …` (`n[0]` of them), then those from `start[1]`, and so on."""
    return np.repeat(start - (np.cumsum(n) - n), n) + np.arange(int(n.sum()))
