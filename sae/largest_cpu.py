"""Exact selection on a CPU: numpy's vectorised partitions on blocks of rows that stay in the cache.

That takes about a third of the time of `torch.topk` for each row's largest, and a tenth or less of `torch.nonzero` for
all above a threshold.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil, gcd
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 2**18
"""Entries of a block of rows: 1 MiB of float32, so that each pass but the first reads from the cache."""
MAX_GROUP = 16
"""Entries represented by one maximum. With larger groups little is left to save, and more survives."""
MIN_GROUP = 4
"""With smaller groups the maxima cost more than they save."""
SAMPLE = 2**17
"""Entries that an estimate of the batch's threshold is made from."""

Result = TypeVar("Result")


class Found(NamedTuple):
    """Entries by their position in the flattened matrix, ascending."""

    positions: NDArray[np.int64]
    values: NDArray[np.floating]


def row_largest(pre_acts: Float[Tensor, "rows d_sae"], k: int, ordered: bool) -> NDArray[np.int64] | None:
    """Each row's k largest, in descending order if `ordered`; None where `torch.topk` is as fast.

    The k largest entries are among those that the k-th largest of their groups' maxima does not rule out.
    """
    group = min(MAX_GROUP, pre_acts.shape[1] // (2 * k))
    if group < MIN_GROUP or len(pre_acts) == 0:
        return None
    return np.concatenate(_each(partial(_row_block, k=k, group=group, ordered=ordered), _blocks(pre_acts)))


def above(pre_acts: Float[Tensor, "rows d_sae"], threshold: Tensor | float) -> Found:
    """All entries above the threshold, which may differ by latent."""
    bound = _array(threshold) if isinstance(threshold, Tensor) else threshold
    blocks = _blocks(pre_acts)
    found = _each(partial(_block_above, threshold=bound), blocks)
    starts = np.cumsum([0, *(block.size for block in blocks[:-1])])
    positions = [one.positions + start for one, start in zip(found, starts, strict=True)]
    return Found(np.concatenate(positions), np.concatenate([one.values for one in found]))


def sampled_floor(pre_acts: Float[Tensor, "rows d_sae"], n: int) -> float:
    """A value that probably more than n entries exceed, by a fifth and six standard deviations of the sample's."""
    entries = _array(pre_acts)
    step = max(1, entries.size // SAMPLE)
    while gcd(step, entries.shape[1]) > 1:  # a common factor would leave latents out
        step += 1
    sample = entries.ravel()[::step]
    rank = ceil(1.2 * n / step + 6 * (n / step) ** 0.5)
    return float(np.partition(sample, -rank)[-rank]) if 0 < rank <= len(sample) else 0.0


def largest_of(values: Float[Tensor, " n_values"], n: int) -> NDArray[np.int64]:
    """Where the n largest are, ascending; of equal ones, the first."""
    entries = _array(values)
    excess = len(entries) - n
    if excess <= 0:
        return np.arange(len(entries))
    bound = np.partition(entries, excess)[excess]
    kept = entries > bound
    kept[np.flatnonzero(entries == bound)[: n - np.count_nonzero(kept)]] = True
    return np.flatnonzero(kept)


def _array(x: Tensor) -> NDArray[np.floating]:
    """Without a copy where numpy knows the type and rows follow each other."""
    wide = x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().float()
    return wide.contiguous().numpy()


def _blocks(pre_acts: Tensor) -> list[NDArray[np.floating]]:
    """Blocks of rows; an empty one where there are no rows."""
    n_rows, d_sae = pre_acts.shape
    rows = max(1, BLOCK // d_sae)
    return np.split(_array(pre_acts), range(rows, n_rows, rows))


def _each(work: Callable[[NDArray], Result], blocks: list[NDArray]) -> list[Result]:
    """`work` on every block, in as many threads as torch would use: numpy lets go of the interpreter's lock."""
    n_threads = min(torch.get_num_threads(), len(blocks))
    if n_threads == 1:
        return [work(block) for block in blocks]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(work, blocks))


def _row_block(block: NDArray, k: int, group: int, ordered: bool) -> NDArray[np.int64]:
    """Each row's k largest, among the entries that the k-th largest of its groups' maxima does not rule out."""
    rows, d_sae = block.shape
    n_groups = d_sae // group
    maxima = block[:, : n_groups * group].reshape(rows, group, n_groups).max(axis=1)
    maxima.partition(n_groups - k, axis=1)
    # "not below" rather than "at least": a row of NaN keeps all its entries, where none would be too few
    positions = np.flatnonzero(~(block < maxima[:, n_groups - k, None]))
    offsets = np.searchsorted(positions, np.arange(0, (rows + 1) * d_sae, d_sae))
    counts = np.diff(offsets)
    width = counts.max()
    if width > d_sae // MIN_GROUP:  # a row with all its entries equal, such as zeros: as well look at everything
        return _best(block, k, ordered).copy()
    slots = np.arange(len(positions)) + np.repeat(np.arange(0, rows * width, width) - offsets[:-1], counts)
    # Every row has k entries or more, above the padding: those of a row whose bound is -inf are the whole row.
    values = np.full((rows, width), -np.inf, block.dtype)
    values.ravel()[slots] = block.ravel()[positions]
    places = np.zeros(rows * width, np.int64)
    places[slots] = positions - np.repeat(np.arange(0, rows * d_sae, d_sae), counts)
    return places[_best(values, k, ordered) + np.arange(0, rows * width, width)[:, None]]


def _best(values: NDArray[np.floating], k: int, ordered: bool) -> NDArray[np.int64]:
    """Each row's k largest, among all its entries."""
    ranked = values.argsort(axis=1) if ordered else values.argpartition(values.shape[1] - k, axis=1)
    return ranked[:, : -k - 1 : -1]


def _block_above(block: NDArray, threshold: NDArray | float) -> Found:
    positions = np.flatnonzero(block > threshold)
    return Found(positions, block.ravel()[positions])
