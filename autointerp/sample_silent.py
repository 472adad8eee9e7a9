"""The silent contexts of a trial: of several kinds, spread over pieces, and marked where active ones are."""

from collections.abc import Sequence

import numpy as np

from autointerp.sample_side import Events, Peaks, Side
from store.latents import Window
from store.token_map import TokenMap

KINDS = ("neighbour", "same_token", "random")
"""Of silent contexts; the last stands in for what is not to be found of the others."""


def silent_places(
    side: Side, events: Events, wanted: dict[str, int], like: np.ndarray, near: Sequence[Peaks], seed: Sequence[int]
) -> dict[str, np.ndarray]:
    """Places around which a latent is silent, by kind; together as many as wanted, or as many as there are.

    Args:
        side: whose documents.
        events: of the latent; complete.
        wanted: how many of each of KINDS.
        like: `[n]` places of its active contexts.
        near: peaks of the nearest latents around which it is silent.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    n = sum(wanted.values())
    candidates = {
        "neighbour": _in_turn([peaks.spread(n, random).places for peaks in near]),
        "same_token": side.on_tokens(like, wanted["same_token"], events, random),
        "random": side.at_random(n, events, random),
    }
    chosen: dict[str, np.ndarray] = {}
    taken = np.empty(0, np.int64)
    for kind in KINDS:
        n_kind = n - len(taken) if kind == "random" else wanted[kind]
        chosen[kind] = spread(side.tokens, candidates[kind], taken, n_kind)
        taken = np.concatenate([taken, chosen[kind]])
    return chosen


def spread(tokens: TokenMap, places: np.ndarray, taken: np.ndarray, n: int) -> np.ndarray:
    """The first `n` of `places` that are not taken: one from each piece that has none yet, and then others."""
    places = places[np.sort(np.unique(places, return_index=True)[1])]
    places = places[~np.isin(places, taken)]
    piece = tokens.pieces(places)
    new = np.zeros(len(places), bool)
    new[np.unique(piece, return_index=True)[1]] = True
    new &= ~np.isin(piece, tokens.pieces(taken))
    return places[np.argsort(~new, kind="stable")[:n]]


def _in_turn(lists: Sequence[np.ndarray]) -> np.ndarray:
    """The first of each, then the second of each, and so on."""
    if not lists:
        return np.empty(0, np.int64)
    turn = np.concatenate([np.arange(len(each)) for each in lists])
    return np.concatenate(lists)[np.argsort(turn, kind="stable")]


def fires_at(window: Window) -> tuple[int, ...]:
    """Indices of the tokens on which the window's latent fires."""
    return tuple(i for i, value in enumerate(window.values) if value)


def marks(silent: Sequence[Window], active: Sequence[Window], random: np.random.Generator) -> list[tuple[int, ...]]:
    """Indices to mark in each silent window: as many, and as far from the peak, as in an active window.

    Each active window lends its pattern once if it can, those that fit few first, so that marks of both kinds have one
    distribution and tell nothing. Where no pattern fits, what fits of one is marked.
    """
    patterns = [np.array(fires_at(window)) - window.peak for window in active]
    if not patterns:
        return [(window.peak,) for window in silent]
    low, high = (np.array([limit(pattern) for pattern in patterns]) for limit in (np.min, np.max))
    peak, n_tokens = np.array([(w.peak, len(w.tokens)) for w in silent], np.int64).reshape(-1, 2).T
    fits = (peak[:, None] + low >= 0) & (peak[:, None] + high < n_tokens[:, None])
    free = np.ones(len(patterns), bool)
    found: list[tuple[int, ...]] = [()] * len(silent)
    for i in np.argsort(fits.sum(axis=1), kind="stable").tolist():
        choice = next(np.flatnonzero(some) for some in (fits[i] & free, fits[i], free | True) if some.any())
        lent = int(random.choice(choice))
        free[lent] = False
        at = peak[i] + patterns[lent]
        found[i] = tuple(at[(at >= 0) & (at < n_tokens[i])].tolist())
    return found
