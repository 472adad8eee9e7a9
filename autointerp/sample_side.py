"""One side of a split of documents: where a latent peaks, where it is silent, what share of windows is active."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from autointerp.index.groups import begins, ranks
from store.feature_index import Fired
from store.token_map import Spans, TokenMap

DRAWS_PER_WINDOW = 50
"""Places tried for every silent window wanted."""
SCAN = 1 << 16
"""Tokens looked through together for given ones."""
MOST_SCANS = 128
"""Stretches of that many looked through at most: a token that is rarer is not worth the wait."""
SPARE = 8
"""Candidates gathered for every window wanted, so that pieces and tokens can be balanced."""


class Events(NamedTuple):
    """What is known of where one latent fires."""

    latent: int
    fired: Fired
    places: np.ndarray
    """`[n]` int64 ascending, of each event."""
    complete: bool
    """Whether every event is kept: where it is silent is known only then."""


class Peaks(NamedTuple):
    """The strongest event of each piece."""

    places: np.ndarray
    """`[n]` int64, strongest first."""
    values: np.ndarray
    """`[n]`."""

    def spread(self, n: int, random: np.random.Generator) -> "Peaks":
        """One from each of `n` equal-count strata of the ordered peaks: all strengths, not only the top."""
        if not len(self.places) or not n:
            return Peaks(self.places[:0], self.values[:0])
        strata = np.array_split(np.arange(len(self.places)), min(n, len(self.places)))
        chosen = np.array([random.choice(part) for part in strata])
        return Peaks(self.places[chosen], self.values[chosen])


@dataclass(frozen=True)
class Side:
    """The documents of one purpose."""

    tokens: TokenMap
    half_window: int
    """Tokens on either side of a window's centre."""
    has: np.ndarray
    """`[n_docs]` bool: which documents."""

    @cached_property
    def _text(self) -> Spans:
        """The places of the text of its pieces, without those that have none."""
        start, stop = self.tokens.piece_start, self.tokens.piece_stop
        wanted = self.has[self.tokens.piece_doc] & (start < stop)
        return Spans(start[wanted], stop[wanted])

    @cached_property
    def _ends(self) -> np.ndarray:
        """`[n_pieces + 1]` how many places lie before each piece."""
        return np.concatenate([[0], np.cumsum(self._text.stop - self._text.start)])

    @cached_property
    def n_windows(self) -> int:
        """Windows, one around each of its tokens of text."""
        return int(self._n_text(self._text.start, self._text.stop).sum())

    def spans(self, places: np.ndarray) -> Spans:
        """The windows around `places`, each inside its document."""
        return self.tokens.spans(places, self.half_window, self.half_window)

    def peaks(self, events: Events) -> Peaks:
        """The strongest event in each document's tokens within one sequence."""
        fired, tokens = events.fired, self.tokens
        own = self.has[fired.doc_id]
        places, values = events.places[own], fired.value[own]
        key = fired.seq[own].astype(np.int64) * tokens.n_docs + fired.doc_id[own]
        order = np.lexsort((places, -values, key))
        first = order[begins(key[order])]
        strongest = first[np.lexsort((places[first], -values[first]))]
        return Peaks(places[strongest], values[strongest])

    def silent(self, places: np.ndarray, events: Events) -> np.ndarray:
        """`[n]` bool: whether the latent fires nowhere in the windows around `places`."""
        spans = self.spans(places)
        return np.searchsorted(events.places, spans.start) == np.searchsorted(events.places, spans.stop)

    def at_random(self, n: int, events: Events, random: np.random.Generator) -> np.ndarray:
        """Places of text, each as likely as any other, around which the latent is silent; about enough for `n`."""
        if not n or not self._ends[-1]:
            return np.empty(0, np.int64)
        drawn = random.integers(self._ends[-1], size=DRAWS_PER_WINDOW * n)
        piece = np.searchsorted(self._ends, drawn, "right") - 1
        places = self._text.start[piece] + drawn - self._ends[piece]
        return self._silent_text(places, events)

    def on_tokens(self, like: np.ndarray, n: int, events: Events, random: np.random.Generator) -> np.ndarray:
        """Places of the same tokens as those at `like`, around which the latent is silent; about enough for `n`.

        Tokens come in the proportions in which they stand at `like`, as far as they go.
        """
        token_ids, counts = np.unique(self.tokens.token_ids[like], return_counts=True)
        found, n_found = [np.empty(0, np.int64)], 0
        stretches = random.permutation(-(-len(self.tokens) // SCAN))[:MOST_SCANS] if n and len(like) else ()
        for stretch in stretches:
            first = int(stretch) * SCAN
            places = first + np.flatnonzero(np.isin(self.tokens.token_ids[first : first + SCAN], token_ids))
            places = places[self.has[self.tokens.documents(places)]]
            found.append(random.permutation(self._silent_text(places, events)))
            if (n_found := n_found + len(found[-1])) >= SPARE * n:
                break
        places = np.concatenate(found)
        which = np.searchsorted(token_ids, self.tokens.token_ids[places])
        order = np.argsort(which, kind="stable")
        turn = (ranks(which[order]) + 0.5) / counts[which[order]]
        return places[order[np.argsort(turn, kind="stable")]]

    def _silent_text(self, places: np.ndarray, events: Events) -> np.ndarray:
        places = places[self.tokens.char_start[places] >= 0]
        return places[self.silent(places, events)] if len(places) else places

    def share_active(self, events: Events) -> float | None:
        """Share of all windows, one around each token of text, in which the latent fires; None where there is none,
        or not all of its events are kept.

        A window around c holds an event at f if c is within reach of it and in its piece; the union of what is within
        reach of any event is counted without making a single window.
        """
        if not self.n_windows or not events.complete:
            return None
        fired = events.places[self.has[events.fired.doc_id]]
        piece = self.tokens.pieces(fired)
        first, past = self.tokens.piece_start[piece], self.tokens.piece_stop[piece]
        inside = (first <= fired) & (fired < past)
        fired, first, past = fired[inside], first[inside], past[inside]
        # Windows neither begin nor end on a token of no text: an event on one is in those that reach text beyond it.
        start = np.maximum(self._text_at(fired, 1) - self.half_window, first)
        stop = np.minimum(self._text_at(fired, -1) + self.half_window + 1, past)
        reached = np.concatenate([[0], np.maximum.accumulate(stop)[:-1]]) if len(stop) else stop
        start = np.minimum(np.maximum(start, reached), stop)
        return float(self._n_text(start, stop).sum() / self.n_windows)

    def _text_at(self, places: np.ndarray, step: int) -> np.ndarray:
        """The nearest token of text at or after each place (before it, for step −1)."""
        places = places.copy()
        while (off := self._n_text(places, places + 1) == 0).any():
            places[off] += step
        return places

    def _n_text(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """`[n]` tokens of text at `start <= place < stop`."""
        textless = self.tokens.textless
        return stop - start - (np.searchsorted(textless, stop) - np.searchsorted(textless, start))
