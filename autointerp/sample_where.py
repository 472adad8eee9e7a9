"""Where every latent's events lie and which latents are nearest: a few numbers of each, asked for once.

A query for each latent takes milliseconds; all rows of a hundred thousand together take about as long as four of them.
"""

from typing import NamedTuple

import numpy as np

from store.feature_index import EventRows, FeatureIndex


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


LIE = "SELECT latent, part, first_row, n_events, event_share = 1 AS complete FROM latents ORDER BY latent"
NEAR = "SELECT latent, other, cosine FROM neighbours WHERE side = 'decoder' AND rank < ? ORDER BY latent, rank"
