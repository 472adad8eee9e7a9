"""What is known of latents without their events: where these lie, which latents are nearest, what is promoted.

A query for each latent takes milliseconds; all rows of a hundred thousand together take about as long as four of them.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from store.feature_index import EventRows, FeatureIndex
from store.latents import Logit

TOGETHER = 256
"""Latents whose logits are asked for at once: they are mostly explained in order."""


class Found(NamedTuple):
    """One latent."""

    latent: int
    rows: EventRows
    complete: bool
    """Whether every event is kept."""


class Where:
    """Of `d_sae` latents, by number; 25 bytes of each and 8 of each of its nearest."""

    def __init__(self, index: FeatureIndex, n_nearest: int) -> None:
        """Ask for all latents, and the `n_nearest` latents of the highest decoder cosine of each."""
        lie = index.arrow(LIE)
        self.latents, self._part, self._first_row, self._n_events, self._complete = (
            column.to_numpy() for column in lie.columns
        )
        near = index.arrow(NEAR, [n_nearest])
        of, self._near, self._cosine = (column.to_numpy() for column in near.columns)
        self._begin = np.searchsorted(of, np.append(self.latents, np.iinfo(of.dtype).max))

    def of(self, latent: int) -> Found | None:
        """Where a latent's events lie; None where there is no such latent."""
        place = int(np.searchsorted(self.latents, latent))
        if place == len(self.latents) or self.latents[place] != latent:
            return None
        lie = EventRows(int(self._part[place]), int(self._first_row[place]), int(self._n_events[place]))
        return Found(latent, lie, bool(self._complete[place]))

    def nearest(self, latent: int) -> list[tuple[Found, float]]:
        """The nearest latents and their cosines, nearest first."""
        place = int(np.searchsorted(self.latents, latent))
        near = slice(self._begin[place], self._begin[place + 1])
        pairs = zip(self._near[near].tolist(), self._cosine[near].tolist(), strict=True)
        return [(found, cosine) for other, cosine in pairs if (found := self.of(other))]


class Logits:
    """What latents promote and suppress, asked for of `TOGETHER` latents at a time; those of one time are kept."""

    def __init__(self, index: FeatureIndex) -> None:
        self._index, self._block = index, -1
        self._rows, self._latents = pa.table({}), np.empty(0, np.int32)

    def of(self, latent: int) -> tuple[tuple[Logit, ...], tuple[Logit, ...]]:
        """The most promoted tokens and the most suppressed, foremost first."""
        if latent // TOGETHER != self._block:
            self._block = latent // TOGETHER
            first = self._block * TOGETHER
            self._rows = self._index.arrow(LOGITS, [first, first + TOGETHER - 1])
            self._latents = self._rows.column("latent").to_numpy()
        start, stop = np.searchsorted(self._latents, [latent, latent + 1]).tolist()
        rows = self._rows.slice(start, stop - start).to_pylist()
        promoted, suppressed = (
            tuple(Logit(row["token_id"], row["token"], row["value"]) for row in rows if row["side"] == side)
            for side in ("top", "bottom")
        )
        return promoted, suppressed


LOGITS = """
SELECT latent, side, token_id, token, value FROM logits WHERE latent BETWEEN ? AND ? ORDER BY latent, side, rank
"""
LIE = "SELECT latent, part, first_row, n_events, event_share = 1 AS complete FROM latents ORDER BY latent"
NEAR = "SELECT latent, other, cosine FROM neighbours WHERE side = 'decoder' AND rank < ? ORDER BY latent, rank"
