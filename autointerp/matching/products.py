"""Co-firing and correlation of every latent of one index with every one of another, exactly, from sparse events.

    r_ij = (N Σ a_i b_j − Σ a_i Σ b_j) / √((N Σ a_i² − (Σ a_i)²)(N Σ b_j² − (Σ b_j)²))

over the N tokens that count on both sides, where a silent latent is 0. Sums of products are those of sparse matrices, a
block of latents by all others at a time; nothing is dense in tokens × latents. The null is the same with one side's
sequences rotated, so that each latent keeps its own values, bursts and positions, and meets other documents.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse

from autointerp.index.coactivation import measures
from autointerp.matching.side import ByToken, Firings, Side

ENTRIES = 2_000_000
"""Pairs of latents worked on at a time: some 200 bytes of memory each."""


class Sums(NamedTuple):
    """`[n]` each, over the tokens that count on both sides."""

    n: np.ndarray
    """Tokens on which it fires."""
    a: np.ndarray
    """Of its values."""
    square: np.ndarray


class Block(NamedTuple):
    """Latents `first`, `first` + 1, … of a by all of b, `[n_rows, d_b]` each."""

    first: int
    own: Sums
    """Of the rows."""
    n_both: np.ndarray
    """int64"""
    products: np.ndarray
    """Σ a b"""

    @property
    def rows(self) -> slice:
        """Which latents of a they are."""
        return slice(self.first, self.first + len(self.n_both))


@dataclass(frozen=True)
class Laid:
    """Both sides' tokens beside each other: as they are, or with a's rotated by `shift` tokens."""

    a: Side
    b: Side
    shift: int = 0

    @property
    def turned(self) -> "Laid":
        """The same with the sides exchanged."""
        return Laid(self.b, self.a, -self.shift)

    @cached_property
    def counted(self) -> np.ndarray:
        """`[n_tokens]` bool, at b's places: the token counts on both sides."""
        return self.b.counted & np.roll(self.a.counted, self.shift)

    @cached_property
    def n_tokens(self) -> int:
        """Tokens that count on both sides."""
        return int(self.counted.sum())

    def firings(self, number: int) -> Firings:
        """A range of a's latents where they come to lie on b, on tokens that count on both sides."""
        found = self.a.firings(number)
        moved = found._replace(place=(found.place + self.shift) % len(self.counted))
        return moved.where(self.counted[moved.place])


@dataclass(frozen=True)
class Meeting:
    """All pairs of latents of two sides."""

    laid: Laid
    on_b: ByToken
    """What of b fires on each token."""

    @cached_property
    def of_b(self) -> Sums:
        """Of every latent of b."""
        d_b = self.laid.b.d_sae
        total = np.zeros((3, d_b))
        for start, stop in self.on_b.chunks():
            matrix = self.on_b.matrix(start, stop)
            keep = np.repeat(self.laid.counted[start:stop], np.diff(matrix.indptr))
            latents, values = matrix.indices[keep], matrix.data[keep]
            for power in range(3):
                total[power] += np.bincount(latents, values**power, d_b)
        return Sums(total[0].astype(np.int64), total[1], total[2])

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return sum(len(self._starts(number)) for number in range(self.laid.a.n_parts))

    def _starts(self, number: int) -> range:
        n_latents = self.laid.a.n_latents(number)
        return range(0, n_latents, max(1, ENTRIES // self.laid.b.d_sae))

    def blocks(self) -> Iterator[Block]:
        """All pairs, some of a's latents at a time."""
        for number in range(self.laid.a.n_parts):
            firings, starts = self.laid.firings(number), self._starts(number)
            for start in starts:
                yield self._block(firings.rows(start, min(start + starts.step, starts.stop)))

    def _block(self, firings: Firings) -> Block:
        n_rows = len(firings.bounds) - 1
        latent, value = firings.latent, firings.value
        n, total, square = (np.bincount(latent, value**power, n_rows) for power in range(3))
        both, products = np.zeros((2, n_rows, self.laid.b.d_sae))
        for start, stop in self.on_b.chunks():
            here = (firings.place >= start) & (firings.place < stop)
            at = (latent[here], firings.place[here] - start)
            matrix = self.on_b.matrix(start, stop)
            own = sparse.csr_array((value[here], at), shape=(n_rows, stop - start))
            products += _product(own, matrix)
            own.data[:], matrix.data[:] = 1, 1
            both += _product(own, matrix)
        return Block(firings.first, Sums(n.astype(np.int64), total, square), both.astype(np.int64), products)

    def correlation(self, block: Block) -> np.ndarray:
        """Pearson's r; NaN where a side does not vary, or its values are not all known."""
        own, other, n = block.own, self.of_b, float(self.laid.n_tokens)
        spread = np.outer(n * own.square - own.a**2, n * other.square - other.a**2)
        known = np.outer(self.laid.a.exact[block.rows], self.laid.b.exact)
        above = n * block.products - np.outer(own.a, other.a)
        out = np.full(above.shape, np.nan)
        np.divide(above, np.sqrt(np.maximum(spread, 0)), out=out, where=known & (spread > 0))
        return out

    def of_firing(self, block: Block) -> dict[str, np.ndarray]:
        """`jaccard`, `phi`, `implies` (b fires where a does) and `implied_by`."""
        own, other = torch.from_numpy(block.own.n)[:, None], torch.from_numpy(self.of_b.n)
        found = measures(torch.from_numpy(block.n_both), own, other, self.laid.n_tokens)
        return {name: found[name].numpy() for name in ("jaccard", "phi", "implies", "implied_by")}


def _product(one: Any, other: Any) -> np.ndarray:
    """Of two sparse matrices."""
    return (one @ other).toarray()
