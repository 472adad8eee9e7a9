"""Split families: a latent of one dictionary that fires where any of several of the other fires, and what absorbs it.

A latent j of the other side is a child of i when P(i fires | j fires) is near 1, their directions are nearer than those
of a random dictionary (without directions: they are correlated above the rotated null), and it has a part of i's
firings. A family is two children or more that cover most of i's firings between them. Bricken et al. 2023, "feature
splitting"; absorption, Chanin et al. 2024, arXiv:2409.14507: j is as near in direction, and i is silent on many of its
firings although a wider latent of that direction should fire.
"""

from typing import NamedTuple

import numpy as np

from autointerp.index.coactivation import FEWEST
from autointerp.index.groups import ranks
from autointerp.matching.config import MatchConfig
from autointerp.matching.products import Laid

PLACES = 100_000
"""Looked up at a time."""
MAX_ABSORBING = 16
"""Kept of one parent, nearest first."""


class Related(NamedTuple):
    """Pairs of a parent and one of the other side whose directions, or firings, are related beyond chance."""

    parent: np.ndarray
    latent: np.ndarray
    share: np.ndarray
    """Of the parent's firings, those on which the latent fires."""
    implies: np.ndarray
    """Of the latent's firings, those on which the parent fires."""
    near: np.ndarray
    """Cosine of their decoder rows; NaN where there is none."""

    def where(self, keep: np.ndarray) -> "Related":
        """Those for which `keep` is true."""
        return Related(*(column[keep] for column in self))


class Families(NamedTuple):
    """Of one side's parents, `[n]` each, in order of parent."""

    parent: np.ndarray
    n_children: np.ndarray
    n_fired: np.ndarray
    coverage: np.ndarray
    largest: np.ndarray
    overlap: np.ndarray
    children: Related
    """Of all of them."""
    absorbing: Related


def related(
    n_both: np.ndarray, n_own: np.ndarray, n_other: np.ndarray, near: np.ndarray | None, close: np.ndarray, first: int
) -> Related:
    """Pairs of a block in which both fire together on enough tokens.

    Args:
        n_both: `[n_rows, n_columns]` tokens on which both fire.
        n_own: `[n_rows]` firings of the parents.
        n_other: `[n_columns]` firings of the others.
        near: `[n_rows, n_columns]` cosines, if there are any.
        close: `[n_rows, n_columns]` bool: related beyond chance.
        first: number of the first parent.
    """
    row, other = np.nonzero(close & (n_both >= FEWEST))
    both = n_both[row, other]
    cosine = np.full(len(row), np.nan) if near is None else near[row, other]
    return Related(row + first, other, both / n_own[row], both / n_other[other], cosine)


def together(parts: list[Related]) -> Related:
    """Of all blocks, in order of parent and latent."""
    joined = Related(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    order = np.lexsort((joined.latent, joined.parent))
    return Related(*(column[order] for column in joined))


def families(laid: Laid, found: Related, cfg: MatchConfig) -> Families:
    """The families whose parents are latents of a.

    Args:
        laid: the parents' index, a, beside the other, b.
        found: every pair that is related, in order of parent.
        cfg: what counts.
    """
    is_child = (found.implies >= cfg.min_implied) & (found.share >= cfg.min_share)
    children = found.where(is_child)
    parents, n_children = np.unique(children.parent, return_counts=True)
    parents, n_children = parents[n_children > 1], n_children[n_children > 1]
    children = children.where(np.isin(children.parent, parents))
    n_fired, covered, several = _covered(laid, parents, children)
    kept = covered >= cfg.min_coverage * n_fired
    children = children.where(np.isin(children.parent, parents[kept]))
    absorbing = found.where((found.implies < cfg.min_implied) & np.isin(found.parent, parents[kept]))
    return Families(
        parent=parents[kept],
        n_children=n_children[kept],
        n_fired=n_fired[kept],
        coverage=covered[kept] / np.maximum(n_fired[kept], 1),
        largest=_largest(children, parents[kept]),
        overlap=several[kept] / np.maximum(covered[kept], 1),
        children=children,
        absorbing=_nearest(absorbing.where(~np.isnan(absorbing.near))),
    )


def _covered(laid: Laid, parents: np.ndarray, children: Related) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each parent its firings, those on which some child fires, and those on which several do."""
    counts = np.zeros((3, len(parents)), np.int64)
    known = np.sort(children.parent.astype(np.int64) * laid.b.d_sae + children.latent)
    for number in laid.a.parts_of(parents):
        firings = laid.firings(number)
        own = np.isin(firings.latent + firings.first, parents)
        place, parent = firings.place[own], (firings.latent + firings.first)[own]
        n_here = np.zeros(len(place), np.int64)
        for start in range(0, len(place), PLACES):
            some = slice(start, start + PLACES)
            beside = laid.b.code_map.fired(place[some])
            which = np.repeat(np.arange(len(beside.bounds) - 1), np.diff(beside.bounds))
            key = parent[some][which] * laid.b.d_sae + beside.latents.astype(np.int64)
            at = np.minimum(np.searchsorted(known, key), len(known) - 1)
            n_here[some] = np.bincount(which[known[at] == key], minlength=len(n_here[some]))
        at = np.searchsorted(parents, parent)
        for i, mask in enumerate((n_here >= 0, n_here > 0, n_here > 1)):
            counts[i] += np.bincount(at[mask], minlength=len(parents))
    return counts[0], counts[1], counts[2]


def _largest(children: Related, parents: np.ndarray) -> np.ndarray:
    out = np.zeros(len(parents))
    np.maximum.at(out, np.searchsorted(parents, children.parent), children.share)
    return out


def _nearest(found: Related) -> Related:
    """The first of each parent by cosine."""
    order = np.lexsort((found.latent, -found.near, found.parent))
    sorted_by = Related(*(column[order] for column in found))
    return sorted_by.where(ranks(sorted_by.parent) < MAX_ABSORBING)
