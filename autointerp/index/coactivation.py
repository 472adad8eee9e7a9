"""Which latents fire on the same tokens, over the whole dictionary, from sparse counts.

With n_i, n_j the tokens on which two latents fire, n_ij those on which both do, and N all tokens: Jaccard
n_ij / (n_i + n_j − n_ij), φ (Pearson's r of two yes-or-no variables), PMI log2(N n_ij / (n_i n_j)), and the directed
P(j | i) = n_ij / n_i, near 1 where i fires only with j: j is the wider of a split family, or was absorbed (Bricken et
al. 2023, "feature splitting"; Chanin et al. 2024, arXiv:2409.14507).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from autointerp.index.gather import CodeFiles, LatentEvents
from autointerp.index.groups import largest, ranks
from autointerp.index.statistics import order_bits

COUNTS = 4_000_000
"""Counts of a block of latents by all latents held at a time."""
ENTRIES = 16_000_000
"""Entries of codes held at a time."""
PAIRS = 1_000_000
"""Pairs whose figures are held at a time."""
FEWEST = 5
"""Two latents that fire together on fewer tokens are not related: chance makes such pairs."""


class Related(NamedTuple):
    """Pairs of latents, `[n]` int64 each."""

    latent: Tensor
    other: Tensor
    n_both: Tensor


def counts(events: LatentEvents, codes: CodeFiles, d_sae: int) -> Iterator[tuple[int, np.ndarray]]:
    """`[block, d_sae]` tokens on which both fire, a block of the range's latents at a time, and where it begins."""
    fired, size = events.fired, max(1, COUNTS // d_sae)
    for start in range(0, events.n_latents, size):
        stop = min(start + size, events.n_latents)
        total = np.zeros((stop - start, d_sae), np.int64)
        own = [fired.place[fired.bounds[latent] : fired.bounds[latent + 1]] for latent in range(start, stop)]
        for lines in codes.lines(ENTRIES):
            for row, places in enumerate(own):
                low, high = np.searchsorted(places, [lines.first, lines.stop])
                if low < high:
                    total[row] += lines.counts(places[low:high], d_sae)
        yield start, total


def measures(n_both: Tensor, n_own: Tensor, n_other: Tensor, n_tokens: int) -> dict[str, Tensor]:
    """Jaccard, φ, PMI in bits, and both directed implications of pairs; float64, shapes as they broadcast."""
    both, own, other = n_both.double(), n_own.double(), n_other.double()
    spread = own * (n_tokens - own) * other * (n_tokens - other)
    return {
        "jaccard": both / (own + other - both).clamp_min(1),
        "phi": torch.where(spread > 0, (n_tokens * both - own * other) / spread.clamp_min(1).sqrt(), 0.0),
        "pmi": (n_tokens * both / (own * other).clamp_min(1)).log2(),
        "implies": both / own.clamp_min(1),
        "implied_by": both / other.clamp_min(1),
    }


RANKED_BY = ("jaccard", "phi", "pmi", "implies")


def coactivations(
    events: LatentEvents, codes: CodeFiles, n_fired: np.ndarray, n_tokens: int, n: int
) -> dict[str, np.ndarray]:
    """The columns of the index's `coactivations` table: of each latent the `n` first by each of RANKED_BY."""
    alive = torch.from_numpy(n_fired)
    blocks = counts(events, codes, len(n_fired))
    rows = max(1, PAIRS // len(n_fired))
    found = [
        _related(events.first + start + row, block[row : row + rows], n_fired, n_tokens, n)
        for start, block in blocks
        for row in range(0, len(block), rows)
    ]
    related = Related(*(torch.cat(column) for column in zip(*found, strict=True)))
    own, other = alive[related.latent], alive[related.other]
    figures = {
        "n_both": related.n_both,
        "expected": own.double() * other / max(n_tokens, 1),
        **measures(related.n_both, own, other, n_tokens),
    }
    columns = {"latent": related.latent, "other": related.other, **figures}
    order = np.lexsort((columns["other"].numpy(), -columns["phi"].numpy(), columns["latent"].numpy()))
    return {name: column.numpy()[order] for name, column in columns.items()}


def _related(first: int, n_both: np.ndarray, n_fired: np.ndarray, n_tokens: int, n: int) -> Related:
    """Of latents `first`, `first` + 1, …, a row each, the others that are among the `n` largest by some figure."""
    rows = np.arange(len(n_both))
    n_both[rows, first + rows] = 0
    row, other = np.nonzero(n_both >= FEWEST)
    both = n_both[row, other]
    n_own, n_other = torch.from_numpy(n_fired[first + row]), torch.from_numpy(n_fired[other])
    figures = measures(torch.from_numpy(both), n_own, n_other, n_tokens)
    chosen = np.zeros(len(row), bool)
    for name in RANKED_BY:
        figure = figures[name].numpy()
        may = largest(row, order_bits(figure), n)
        order = may[np.lexsort((other[may], -figure[may], row[may]))]
        chosen[order[ranks(row[order]) < n]] = True
    return Related(*(torch.from_numpy(each[chosen]) for each in (first + row, other, both)))
