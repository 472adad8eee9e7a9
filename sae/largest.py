"""Which pre-activations are kept: the largest of a row, the largest of a batch, or all above a threshold. All exact.

On a CPU the number of kept entries is simply there, and the largest are looked for among few candidates. An accelerator
would have to be waited for to learn a number of entries, so that there every size is known beforehand.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae import largest_cpu
from sae.room import Room
from sae.sparse import Pattern

FEW = 64
"""Up to so many of a row are found through maxima of groups by torch, more by numpy: measured at 32 and 128."""
GROUPS = {8: 64, 4: 16}
"""Sizes of groups, and how many times k latents there must be for one to be worth its maxima."""

Blocks = Callable[[], Iterator[Tensor]]
"""Makes the pre-activations, block by block, as often as it is called."""


def may_wait(x: Tensor) -> bool:
    """Whether learning a number from a tensor costs nothing."""
    return x.device.type == "cpu"


def row_largest(pre_acts: Float[Tensor, "rows d_sae"], k: int, *, ordered: bool = False) -> Int[Tensor, "rows k"]:
    """Each row's k largest, the largest first if `ordered`; of equal ones, any."""
    if pre_acts.device.type == "cpu":
        if k <= FEW:
            return _by_groups(pre_acts, k, ordered)
        if (found := largest_cpu.row_largest(pre_acts, k, ordered)) is not None:
            return torch.from_numpy(found)
    return pre_acts.topk(k, dim=1, sorted=ordered).indices


def _by_groups(pre_acts: Tensor, k: int, ordered: bool) -> Tensor:
    """The k largest lie in the k groups with the largest maxima; these are found in the same way."""
    d_sae = pre_acts.shape[1]
    g = next((g for g, at_least in GROUPS.items() if d_sae >= at_least * k), None)
    if g is None:
        return pre_acts.topk(k, dim=1, sorted=ordered).indices
    # members of a group are d_sae // g apart, so that maxima are taken along contiguous memory
    n_groups = d_sae // g
    maxima = pre_acts[:, : g * n_groups].unflatten(1, (g, n_groups)).amax(dim=1)
    members = torch.arange(g).unsqueeze(1) * n_groups
    candidates = (_by_groups(maxima, k, False).unsqueeze(1) + members).flatten(1)
    if g * n_groups < d_sae:
        rest = torch.arange(g * n_groups, d_sae).expand(len(pre_acts), -1)
        candidates = torch.cat([candidates, rest], dim=1)
    best = pre_acts.gather(1, candidates).topk(k, dim=1, sorted=ordered).indices
    return candidates.gather(1, best)


def above(
    pre_acts: Float[Tensor, "rows d_sae"], threshold: Float[Tensor, "..."] | float, room: Room | None = None
) -> Pattern:
    """All entries above a threshold, or above each latent's own, in order.

    `room` says how many entries there may be where their number is not waited for; None waits.
    """
    if room is not None and not may_wait(pre_acts):
        return _padded(pre_acts > threshold, room)
    if pre_acts.device.type == "cpu":
        return _pattern(torch.from_numpy(largest_cpu.above(pre_acts, threshold).positions), *pre_acts.shape)
    return _pattern((pre_acts > threshold).flatten().nonzero().squeeze(1), *pre_acts.shape)


def batch_largest(
    blocks: Blocks, n_rows: int, n: int, floor: Float[Tensor, ""]
) -> tuple[Pattern, Float[Tensor, " kept"]]:
    """The n largest positive entries of all blocks together, in order, and what they are.

    Args:
        blocks: makes the pre-activations; on an accelerator there is one block.
        n_rows: rows of all blocks together.
        n: entries wanted. There are fewer on a CPU if fewer are positive; an accelerator then has some that are not.
        floor: a guess at what the n-th largest is above. A wrong one costs time; 0 has it sampled from the first block.
    """
    now = blocks()
    first = next(now)
    if not may_wait(first):
        values, positions = first.flatten().topk(n, sorted=False)
        positions, order = positions.sort()
        return _pattern(positions, *first.shape), values[order]
    guess = floor.item() or largest_cpu.sampled_floor(first, n * len(first) // max(1, n_rows))
    pattern, values = _candidates(chain([first], now), guess)
    if len(values) < n and guess > 0:
        pattern, values = _candidates(blocks(), 0.0)
    if len(values) <= n:
        return pattern, values
    keep = torch.from_numpy(largest_cpu.largest_of(values, n))
    rows = pattern.rows[keep]
    kept = Pattern(pattern.indices[keep], _offsets(rows, len(pattern)), pattern.d_sae)
    kept.rows = rows
    return kept, values[keep]


def _candidates(blocks: Iterable[Tensor], floor: float) -> tuple[Pattern, Tensor]:
    """All entries above `floor`, and above 0."""
    patterns, values = [], []
    for block in blocks:
        found = largest_cpu.above(block, max(floor, 0.0))
        patterns.append(_pattern(torch.from_numpy(found.positions), *block.shape))
        values.append(torch.from_numpy(found.values).to(block.dtype))
    return Pattern.cat(patterns), torch.cat(values)


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
    n = mask.sum()
    positions = torch.nonzero_static(
        mask.flatten(), size=room.size(mask.numel()), fill_value=(n_rows - 1) * d_sae
    ).squeeze(1)
    room.see(n)
    pattern = _pattern(positions, n_rows, d_sae)
    pattern.n_real = n
    return pattern
