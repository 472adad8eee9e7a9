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

ENTRIES = 8_000_000
"""Counts of a block of latents by all latents held at a time, and pairs counted at a time."""
FEWEST = 5
"""Two latents that fire together on fewer tokens are not related: chance makes such pairs."""


class Related(NamedTuple):
    """Pairs of latents, `[n]` int64 each."""

    latent: Tensor
    other: Tensor
    n_both: Tensor


def counts(events: LatentEvents, codes: CodeFiles, d_sae: int) -> Iterator[tuple[int, np.ndarray]]:
    """`[block, d_sae]` tokens on which both fire, a block of the range's latents at a time, and where it begins."""
    fired = events.fired
    for start, stop in _blocks(fired.n, d_sae):
        own = slice(fired.bounds[start], fired.bounds[stop])
        latent = fired.latent[own] - start
        keys = (latent[pairs.which] * d_sae + pairs.latent for pairs in codes.beside(fired.place[own]))
        yield start, _counted(keys, (stop - start) * d_sae).reshape(stop - start, d_sae)


def _counted(keys: Iterator[np.ndarray], n: int) -> np.ndarray:
    """`[n]` how often each key below `n` is there."""
    total, held, n_held = np.zeros(n, np.int64), [], 0
    for some in keys:
        held.append(some)
        n_held += len(some)
        if n_held > ENTRIES:
            total += np.bincount(np.concatenate(held), minlength=n)
            held, n_held = [], 0
    return total + np.bincount(np.concatenate([np.empty(0, np.int64), *held]), minlength=n)


def _blocks(n: np.ndarray, d_sae: int) -> Iterator[tuple[int, int]]:
    """Ranges of latents with few enough counts and events."""
    start, held = 0, 0
    for latent, events in enumerate(n.tolist()):
        full = (latent + 1 - start) * d_sae > ENTRIES or held + events > ENTRIES // 16
        if latent > start and full:
            yield start, latent
            start, held = latent, 0
        held += events
    if len(n):
        yield start, len(n)


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
    found = [_related(events.first + start, torch.from_numpy(block), alive, n_tokens, n) for start, block in blocks]
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


def _related(first: int, n_both: Tensor, n_fired: Tensor, n_tokens: int, n: int) -> Related:
    """Of latents `first`, `first` + 1, …, a row each, the others that are among the `n` largest by some figure."""
    rows = torch.arange(len(n_both))
    n_both[rows, first + rows] = 0
    enough = n_both >= FEWEST
    figures = measures(n_both, n_fired[first : first + len(n_both), None], n_fired, n_tokens)
    chosen = torch.zeros_like(enough)
    for name in RANKED_BY:
        best = figures[name].masked_fill_(~enough, -torch.inf).topk(min(n, n_both.shape[1]), dim=1).indices
        chosen.scatter_(1, best, True)
    row, other = (chosen & enough).nonzero(as_tuple=True)
    return Related(first + row, other, n_both[row, other])
