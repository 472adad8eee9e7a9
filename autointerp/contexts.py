"""Which contexts of a latent to keep: its strongest, and a fair sample of each quarter of its range."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from autointerp.events import Events

KEY_BEFORE, KEY_AFTER = 8, 3
"""Two contexts are one when the tokens this far before and after the peak are the same."""


class Layout(NamedTuple):
    """What is needed of the sequences to place windows in them."""

    token_ids: list[tuple[int, ...]]
    """By `seq`."""
    has_bos: bool
    half_window: int
    """Tokens shown on either side of the peak."""

    def window(self, seq: int, pos: int) -> tuple[int, int]:
        """First position of the window around `pos`, and the first after it; BOS is never shown."""
        start = max(pos - self.half_window, int(self.has_bos))
        return start, min(pos + self.half_window + 1, len(self.token_ids[seq]))

    def key(self, seq: int, pos: int) -> tuple[int, ...]:
        """The tokens around a peak, ending at a fixed distance from it."""
        ids = self.token_ids[seq]
        return ids[max(pos - KEY_BEFORE, 0) : pos + KEY_AFTER + 1]


class Kept(NamedTuple):
    """A context to store: a peak and what it stands for."""

    band: str
    rank: int
    event: int
    """Its place in the peaks."""
    weight: float


def choose(strongest: Events, layout: Layout, n_top: int, n_bands: int, per_band: int, seed: int) -> dict[str, Any]:
    """The columns of the index's `contexts` table.

    Args:
        strongest: from `peaks`: strongest first within each latent.
        layout: of the sequences.
        n_top: strongest contexts kept, equal ones once.
        n_bands: equal-count bands of the peaks by value; `q1` is the weakest.
        per_band: contexts drawn from each band without replacement, equal ones once.
        seed: of the draw, which is another for every latent.
    """
    bounds = strongest.bounds
    rows: list[tuple[int, Kept]] = []
    for latent in range(strongest.d_sae):
        places = np.arange(bounds[latent], bounds[latent + 1])
        if len(places):
            rows += [(latent, kept) for kept in _top(strongest, layout, places, n_top)]
            random = np.random.default_rng([seed, latent])
            rows += [(latent, kept) for kept in _bands(strongest, layout, places, n_bands, per_band, random)]
    return _columns(strongest, layout, rows)


def _distinct(strongest: Events, layout: Layout, places: np.ndarray, n: int) -> list[int]:
    """The first `n` of `places` whose contexts differ."""
    seen: set[tuple[int, ...]] = set()
    chosen: list[int] = []
    for place in places:
        key = layout.key(int(strongest.seq[place]), int(strongest.pos[place]))
        if key not in seen:
            seen.add(key)
            chosen.append(int(place))
            if len(chosen) == n:
                break
    return chosen


def _top(strongest: Events, layout: Layout, places: np.ndarray, n: int) -> Iterator[Kept]:
    for rank, place in enumerate(_distinct(strongest, layout, places, n)):
        yield Kept("top", rank, place, 1.0)


def _bands(
    strongest: Events, layout: Layout, places: np.ndarray, n_bands: int, per_band: int, random: np.random.Generator
) -> Iterator[Kept]:
    for number, band in enumerate(np.array_split(places[::-1], n_bands), 1):
        chosen = sorted(_distinct(strongest, layout, random.permutation(band), per_band))
        for rank, place in enumerate(chosen):
            yield Kept(f"q{number}", rank, place, len(band) / len(chosen))


def _columns(strongest: Events, layout: Layout, rows: list[tuple[int, Kept]]) -> dict[str, Any]:
    at = np.array([kept.event for _, kept in rows], dtype=np.int64)
    seq, pos = strongest.seq[at], strongest.pos[at]
    spans = [layout.window(int(s), int(p)) for s, p in zip(seq, pos, strict=True)]
    return {
        "latent": [latent for latent, _ in rows],
        "band": [kept.band for _, kept in rows],
        "rank": [kept.rank for _, kept in rows],
        "seq": seq,
        "pos": pos,
        "value": strongest.value[at],
        "start": [start for start, _ in spans],
        "stop": [stop for _, stop in spans],
        "doc_id": strongest.doc_id[at],
        "weight": [kept.weight for _, kept in rows],
    }
