"""Entries in groups that lie together: how-manieth each is, and the largest of each, without sorting everything."""

import numpy as np


def begins(*keys: np.ndarray) -> np.ndarray:
    """Indices at which a run of entries begins that are equal in all `keys` `[n]`."""
    new = np.zeros(len(keys[0]), bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(new)


def ranks(group: np.ndarray) -> np.ndarray:
    """`[n]` the how-manieth of its group each entry is; groups lie together."""
    first = begins(group)
    return np.arange(len(group)) - np.repeat(first, np.diff(np.append(first, len(group))))


def sizes(group: np.ndarray) -> np.ndarray:
    """`[n]` how many entries the group of each has."""
    return np.bincount(group, minlength=1)[group] if len(group) else np.empty(0, np.int64)


def first_of_each(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the first of each key, in order, and how many have it."""
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    order = np.argsort(first)
    return first[order], counts[order]


def joined(group: np.ndarray, score: np.ndarray) -> np.ndarray:
    """`[n]` uint64 in order of group and score; scores are below 2^32."""
    keys = group.astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= score.astype(np.uint64, copy=False)
    return keys


def largest(group: np.ndarray, score: np.ndarray, n: int) -> np.ndarray:
    """Indices, ascending, of the `n` largest scores of each group, and of those equal to the last of them.

    Args:
        group: `[n_entries]` ascending from 0.
        score: `[n_entries]` below 2^32.
        n: that many.
    """
    if not len(group):
        return np.empty(0, np.int64)
    keys = joined(group, score)
    stops = np.cumsum(np.bincount(group))
    starts = np.concatenate([[0], stops[:-1]])
    at = np.minimum(np.maximum(stops - n, starts), len(keys) - 1)
    return np.flatnonzero(keys >= np.sort(keys)[at][group])
