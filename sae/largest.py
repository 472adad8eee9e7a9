"""Which pre-activations are kept: the largest of a row, the largest of a batch, or all above a threshold. All exact.

On a CPU the number of kept entries is simply there, and the largest are looked for among few candidates. An accelerator
would have to be waited for to learn a number of entries, so that there every size is known beforehand.
"""

import math
from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.room import Room
from sae.sparse import Pattern

GROUPS_PER_K = 16
"""Groups of latents for each latent that is kept, about: as measured for k = 32 and 128 of 4,608 and 16,384 latents."""
MIN_GROUP = 2
GUESS = 0.9
"""Share of a block's own cut at which candidates are taken."""

Blocks = Callable[[], Iterable[Tensor]]
"""Makes the pre-activations, block by block, as often as it is called."""


def may_wait(x: Tensor) -> bool:
    """Whether learning a number from a tensor costs nothing."""
    return x.device.type == "cpu"


def row_largest(pre_acts: Float[Tensor, "rows d_sae"], k: int, *, ordered: bool = False) -> Int[Tensor, "rows k"]:
    """Each row's k largest, the largest first if `ordered`; of equal ones, any.

    The k largest entries lie in the k groups with the largest maxima: where latents fall into groups of g, only k · g
    of them need be looked at.
    """
    d_sae = pre_acts.shape[1]
    g = d_sae // (GROUPS_PER_K * k)
    if not may_wait(pre_acts) or g < MIN_GROUP:
        return pre_acts.topk(k, dim=1, sorted=ordered).indices
    # members of a group are d_sae // g apart, so that maxima are taken along contiguous memory
    n_groups = d_sae // g
    whole = pre_acts[:, : g * n_groups]
    maxima = whole.unflatten(1, (g, n_groups)).amax(dim=1)
    groups = maxima.topk(k, dim=1, sorted=False).indices
    members = torch.arange(g, device=pre_acts.device).unsqueeze(1) * n_groups
    candidates = (groups.unsqueeze(1) + members).flatten(1)
    if g * n_groups < d_sae:
        rest = torch.arange(g * n_groups, d_sae, device=pre_acts.device)
        candidates = torch.cat([candidates, rest.expand(len(pre_acts), -1)], dim=1)
    best = pre_acts.gather(1, candidates).topk(k, dim=1, sorted=ordered).indices
    return candidates.gather(1, best)


def above(
    pre_acts: Float[Tensor, "rows d_sae"], threshold: Float[Tensor, "..."] | float, room: Room | None = None
) -> Pattern:
    """All entries above a threshold, or above each latent's own, in order.

    `room` says how many entries there may be where their number is not waited for; None waits.
    """
    mask = pre_acts > threshold
    if room is None or may_wait(pre_acts):
        return _pattern(_positions(mask), *pre_acts.shape)
    return _padded(mask, room)


def batch_largest(
    blocks: Blocks, n_rows: int, n: int, floor: Float[Tensor, ""]
) -> tuple[Pattern, Float[Tensor, " kept"]]:
    """The n largest positive entries of all blocks together, in order, and what they are.

    Args:
        blocks: makes the pre-activations; on an accelerator there is one block.
        n_rows: rows of all blocks together.
        n: entries wanted. There are fewer on a CPU if fewer are positive; an accelerator then has some that are not.
        floor: a guess at what the n-th largest is above. A wrong one costs time: 0 guesses from the first block.
    """
    blocks_now = iter(blocks())
    first = next(blocks_now)
    if not may_wait(first):
        values, positions = first.flatten().topk(n, sorted=False)
        positions, order = positions.sort()
        return _pattern(positions, *first.shape), values[order]
    guess = floor.item()
    if not guess > 0:
        guess = _guess(first, n / n_rows)
    pattern, values = _candidates(chain([first], blocks_now), guess)
    if len(values) < n and guess > 0:
        pattern, values = _candidates(blocks(), 0.0)
    if len(values) <= n:
        return pattern, values
    # np.partition takes a third of the time of torch.topk, and its cut is the n-th largest value
    cut = np.partition(values.numpy(), len(values) - n)[len(values) - n]
    keep = _exactly(values, cut.item(), n)
    rows, indices = pattern.rows[keep], pattern.indices[keep]
    return Pattern(indices, _offsets(rows, len(pattern)), pattern.d_sae), values[keep]


def _candidates(blocks: Iterable[Tensor], floor: float) -> tuple[Pattern, Tensor]:
    """All entries above `floor`."""
    patterns, values = [], []
    for block in blocks:
        positions = _positions(block > max(floor, 0.0))
        patterns.append(_pattern(positions, *block.shape))
        values.append(block.flatten()[positions])
    return Pattern.cat(patterns), torch.cat(values)


def _guess(block: Tensor, per_row: float) -> float:
    """Somewhat below what this block's share of the largest is above."""
    n = min(block.numel(), math.ceil(per_row * len(block)))
    return GUESS * np.partition(block.flatten().numpy(), block.numel() - n)[block.numel() - n].item()


def _exactly(values: Tensor, cut: float, n: int) -> Int[Tensor, " n"]:
    """Where the n largest values are: all above the cut, and the first of those at it."""
    over = values > cut
    at = (values == cut).nonzero().squeeze(1)[: n - int(over.sum())]
    over[at] = True
    return over.nonzero().squeeze(1)


def _positions(mask: Bool[Tensor, "rows d_sae"]) -> Int[Tensor, " kept"]:
    """Where a mask is set, flattened, in order."""
    if mask.device.type == "cpu":
        # numpy takes a tenth of the time of torch.nonzero
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero().squeeze(1)


def _pattern(positions: Int[Tensor, " kept"], n_rows: int, d_sae: int) -> Pattern:
    rows = positions.div(d_sae, rounding_mode="floor")
    pattern = Pattern(positions - rows * d_sae, _offsets(rows, n_rows), d_sae)
    pattern.rows = rows
    return pattern


def _offsets(rows: Int[Tensor, " kept"], n_rows: int) -> Int[Tensor, " n_rows_and_1"]:
    return torch.searchsorted(rows, torch.arange(n_rows + 1, device=rows.device))


def _padded(mask: Bool[Tensor, "rows d_sae"], room: Room) -> Pattern:
    """As many entries as there is room for; those that are not there are latent 0 of the last row, and marked."""
    n_rows, d_sae = mask.shape
    size = room.size(mask.numel())
    n = mask.sum()
    room.see(n)
    positions = torch.nonzero_static(mask.flatten(), size=size, fill_value=(n_rows - 1) * d_sae).squeeze(1)
    pattern = _pattern(positions, n_rows, d_sae)
    pattern.n_real = n
    return pattern
