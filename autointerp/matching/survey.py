"""What is found of two dictionaries in one pass over all pairs of latents, as they are or as a null."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from activations.progress import Progress
from autointerp.matching.config import MatchConfig
from autointerp.matching.directions import Directions
from autointerp.matching.families import Related, related, together
from autointerp.matching.pairing import Ranking
from autointerp.matching.products import Block, Meeting

FIRING = ("phi", "jaccard")


class Close(NamedTuple):
    """From where on two latents are related beyond chance: by cosine where there are directions, or by correlation."""

    directions: Directions | None
    threshold: float


class Survey(NamedTuple):
    """What one pass over a meeting finds."""

    rankings: dict[str, Ranking]
    """`correlation`, and those of FIRING."""
    of_a: Related
    """Parents in a, in order."""
    of_b: Related
    """Parents in b, in order."""


def survey_directions(directions: Directions, *, keep: bool) -> Ranking:
    """Rank all cosines."""
    ranking = Ranking(len(directions.a), len(directions.b), keep=keep)
    for first, cosines in directions.blocks():
        ranking.see(first, cosines.numpy())
    return ranking


def survey(
    meeting: Meeting, cfg: MatchConfig, close: Close | None, progress: Progress, label: str, *, keep: bool
) -> Survey:
    """Rank all pairs by what fires; related pairs are looked for where it is known what is `close`."""
    n_a, n_b = meeting.laid.a.d_sae, meeting.laid.b.d_sae
    rankings = {"correlation": Ranking(n_a, n_b, keep=keep)}
    rankings |= {name: Ranking(n_a, n_b, keep=False) for name in FIRING}
    parts: dict[str, list[Related]] = {"a": [_NONE], "b": [_NONE]}
    for block in progress(meeting.blocks(), meeting.n_blocks, label):
        judged = np.outer(block.own.n >= cfg.min_fired, meeting.of_b.n >= cfg.min_fired)
        correlation = np.where(judged, meeting.correlation(block), np.nan)
        rankings["correlation"].see(block.first, correlation)
        figures = meeting.of_firing(block)
        for name in FIRING:
            rankings[name].see(block.first, np.where(judged & (block.n_both > 0), figures[name], np.nan))
        if close is not None:
            _relate(parts, block, meeting.of_b.n, judged, correlation, close)
    return Survey(rankings, together(parts["a"]), together(parts["b"]))


def _relate(
    parts: dict[str, list[Related]],
    block: Block,
    n_b: np.ndarray,
    judged: np.ndarray,
    correlation: np.ndarray,
    close: Close,
) -> None:
    near = None
    if close.directions is not None:
        near = (close.directions.a[block.rows] @ close.directions.b.t()).numpy()
    is_close = judged & ((correlation if near is None else near) > close.threshold)
    parts["a"].append(related(block.n_both, block.own.n, n_b, near, is_close, block.first))
    turned = related(block.n_both.T, n_b, block.own.n, None if near is None else near.T, is_close.T, 0)
    parts["b"].append(turned._replace(latent=turned.latent + block.first))


_NONE = Related(np.empty(0, np.int64), np.empty(0, np.int64), *(np.empty(0) for _ in range(3)))


@dataclass(frozen=True)
class PairFigures:
    """Every measure of chosen pairs."""

    meeting: Meeting
    directions: dict[str, Directions]

    def of(self, a: np.ndarray, b: np.ndarray, progress: Progress) -> dict[str, np.ndarray]:
        """The columns of the table `pairs`, NaN for what is missing; `a` ascending."""
        columns: dict[str, np.ndarray] = {"a": a, "b": b, "n_both": np.zeros(len(a), np.int64)}
        for side in ("decoder", "encoder"):
            found = self.directions.get(side)
            columns[side] = np.full(len(a), np.nan)
            if found is not None and len(a):
                columns[side] = np.einsum("ij,ij->i", found.a.numpy()[a], found.b.numpy()[b])
        names = ("correlation", *FIRING, "implies", "implied_by")
        columns |= {name: np.full(len(a), np.nan) for name in names}
        for block in progress(self.meeting.blocks(), self.meeting.n_blocks, "figures of pairs"):
            own = slice(*np.searchsorted(a, [block.rows.start, block.rows.stop]))
            at = (a[own] - block.first, b[own])
            fires = (block.own.n[at[0]] > 0) & (self.meeting.of_b.n[at[1]] > 0)
            columns["n_both"][own] = block.n_both[at]
            columns["correlation"][own] = self.meeting.correlation(block)[at]
            for name, values in self.meeting.of_firing(block).items():
                columns[name][own] = np.where(fires, values[at], np.nan)
        return columns | {"a_implies_b": columns.pop("implies"), "b_implies_a": columns.pop("implied_by")}
