"""Which contexts of a latent to keep: its strongest, and a fair sample of each quarter of its range."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from autointerp.events import Events

KEY_BEFORE, KEY_AFTER = 8, 3
"""Two contexts are one when the tokens this far before and after the peak are the same."""


class Spans(NamedTuple):
    """Windows `start <= place < stop`."""

    start: np.ndarray
    stop: np.ndarray


@dataclass(frozen=True)
class Layout:
    """All sequences end to end, in order of `seq`. A place is an index into their tokens.

    A piece is a run of tokens of one document in one sequence: what a window never reaches out of.
    """

    seqs: np.ndarray
    """`[n_sequences]` ascending."""
    offsets: np.ndarray
    """`[n_sequences + 1]` place of each sequence's first token, and the number of tokens."""
    token_ids: np.ndarray
    """`[n_tokens]`."""
    pieces: np.ndarray
    """`[n_pieces + 1]` place of each piece's first token, and the number of tokens."""
    doc_ids: np.ndarray
    """`[n_pieces]` the document of each."""
    text: np.ndarray
    """`[n_text]` places of tokens that stand for text, not BOS or separators; ascending."""

    @classmethod
    def of(cls, sequences: pa.Table) -> "Layout":
        """From the columns `seq token_ids doc_ids char_start`."""
        table = sequences.sort_by("seq").combine_chunks()
        lengths = table.column("token_ids").combine_chunks().value_lengths().to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        doc_ids = _flat(table, "doc_ids")
        first = np.concatenate([doc_ids[1:] != doc_ids[:-1], [True]])
        first = np.concatenate([[True], first])
        first[offsets] = True
        pieces = np.flatnonzero(first)
        return cls(
            seqs=table.column("seq").to_numpy(),
            offsets=offsets,
            token_ids=_flat(table, "token_ids"),
            pieces=pieces,
            doc_ids=doc_ids[pieces[:-1]],
            text=np.flatnonzero(_flat(table, "char_start") >= 0),
        )

    def places(self, seq: np.ndarray, pos: np.ndarray) -> np.ndarray:
        """`[n]` where the tokens at `pos` of `seq` are."""
        return self.offsets[np.searchsorted(self.seqs, seq)] + pos

    def positions(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`seq` and `pos` of each place."""
        row = np.searchsorted(self.offsets, places, "right") - 1
        return self.seqs[row], places - self.offsets[row]

    def spans(self, places: np.ndarray, before: int, after: int) -> Spans:
        """Windows around `places`, inside their documents and without BOS or separators at their ends."""
        piece = np.searchsorted(self.pieces, places, "right") - 1
        start = np.maximum(places - before, self.pieces[piece])
        stop = np.minimum(places + after + 1, self.pieces[piece + 1])
        after_start, before_stop = np.searchsorted(self.text, start), np.searchsorted(self.text, stop) - 1
        first = np.where(after_start < len(self.text), self.text.take(after_start, mode="clip"), places)
        last = np.where(before_stop >= 0, self.text.take(before_stop, mode="clip"), places)
        # The place itself always stays, whatever it is.
        return Spans(np.minimum(first, places), np.maximum(last, places) + 1)


def _flat(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).combine_chunks().flatten().to_numpy()


class Kept(NamedTuple):
    """A context to store: a peak and what it stands for."""

    band: str
    rank: int
    event: int
    """Its place in the peaks."""
    weight: float


def choose(
    strongest: Events, layout: Layout, half_window: int, n_top: int, n_bands: int, per_band: int, seed: int
) -> dict[str, Any]:
    """The columns of the index's `contexts` table.

    Args:
        strongest: from `peaks`: strongest first within each latent.
        layout: of the sequences.
        half_window: tokens shown on either side of a peak.
        n_top: strongest contexts kept, equal ones once.
        n_bands: equal-count bands of the peaks by value; `q1` is the weakest.
        per_band: contexts drawn from each band without replacement, equal ones once.
        seed: of the draw, which is another for every latent.
    """
    bounds = strongest.bounds
    keys = Keys(layout, strongest)
    rows: list[tuple[int, Kept]] = []
    for latent in range(strongest.d_sae):
        places = np.arange(bounds[latent], bounds[latent + 1])
        if len(places):
            rows += [(latent, kept) for kept in _top(keys, places, n_top)]
            random = np.random.default_rng([seed, latent])
            rows += [(latent, kept) for kept in _bands(keys, places, n_bands, per_band, random)]
    return _columns(strongest, layout, half_window, rows)


class Keys:
    """What tells the contexts of peaks apart: the tokens around each, ending at a fixed distance from it."""

    def __init__(self, layout: Layout, strongest: Events) -> None:
        self._token_ids = layout.token_ids
        self._spans = layout.spans(layout.places(strongest.seq, strongest.pos), KEY_BEFORE, KEY_AFTER)

    def __getitem__(self, peak: int) -> bytes:
        return self._token_ids[self._spans.start[peak] : self._spans.stop[peak]].tobytes()


def _distinct(keys: Keys, places: np.ndarray, n: int) -> list[int]:
    """The first `n` of `places` whose contexts differ."""
    seen: set[bytes] = set()
    chosen: list[int] = []
    for place in places.tolist():
        if (key := keys[place]) not in seen:
            seen.add(key)
            chosen.append(place)
            if len(chosen) == n:
                break
    return chosen


def _top(keys: Keys, places: np.ndarray, n: int) -> Iterator[Kept]:
    for rank, place in enumerate(_distinct(keys, places, n)):
        yield Kept("top", rank, place, 1.0)


def _bands(keys: Keys, places: np.ndarray, n_bands: int, per_band: int, random: np.random.Generator) -> Iterator[Kept]:
    for number, band in enumerate(np.array_split(places[::-1], n_bands), 1):
        chosen = sorted(_distinct(keys, random.permutation(band), per_band))
        for rank, place in enumerate(chosen):
            yield Kept(f"q{number}", rank, place, len(band) / len(chosen))


def _columns(strongest: Events, layout: Layout, half_window: int, rows: list[tuple[int, Kept]]) -> dict[str, Any]:
    at = np.array([kept.event for _, kept in rows], dtype=np.int64)
    seq, pos = strongest.seq[at], strongest.pos[at]
    places = layout.places(seq, pos)
    spans = layout.spans(places, half_window, half_window)
    return {
        "latent": [latent for latent, _ in rows],
        "band": [kept.band for _, kept in rows],
        "rank": [kept.rank for _, kept in rows],
        "seq": seq,
        "pos": pos,
        "value": strongest.value[at],
        "start": pos + spans.start - places,
        "stop": pos + spans.stop - places,
        "doc_id": strongest.doc_id[at],
        "weight": [kept.weight for _, kept in rows],
    }
