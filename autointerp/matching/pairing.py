"""From all values of one measure, block by block: each latent's best partner, and one-to-one pairs."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment


class Pairs(NamedTuple):
    """Pairs of latents, each latent in one pair at most, in order of a."""

    a: np.ndarray
    b: np.ndarray
    value: np.ndarray


class Ranking:
    """What was seen of one measure of every latent of a with every one of b; NaN where a pair is not judged."""

    def __init__(self, n_a: int, n_b: int, *, keep: bool) -> None:
        """Begin with nothing seen; `keep` holds all values, for one-to-one pairs."""
        self.best_a, self.best_b = np.full(n_a, np.nan), np.full(n_b, np.nan)
        self.other_a, self.other_b = np.full(n_a, -1), np.full(n_b, -1)
        self._kept = np.full((n_a, n_b), np.nan, np.float32) if keep else None

    def see(self, first: int, values: np.ndarray) -> None:
        """Values `[n_rows, n_b]` of a's latents `first`, `first` + 1, …; blocks come in order."""
        if self._kept is not None:
            self._kept[first : first + len(values)] = values
        if not values.size:
            return
        filled = np.where(np.isnan(values), -np.inf, values)
        rows = slice(first, first + len(values))
        self.best_a[rows], self.other_a[rows] = _largest(filled, axis=1)
        best, other = _largest(filled, axis=0)
        better = (best > self.best_b) | (np.isnan(self.best_b) & ~np.isnan(best))
        self.best_b[better], self.other_b[better] = best[better], other[better] + first

    def of(self, side: str) -> tuple[np.ndarray, np.ndarray]:
        """The best value of each latent of side `a` or `b`, NaN for none, and whose it is."""
        return (self.best_a, self.other_a) if side == "a" else (self.best_b, self.other_b)

    @property
    def best(self) -> np.ndarray:
        """Values of the best partners of all latents of both sides that have one."""
        both = np.concatenate([self.best_a, self.best_b])
        return both[~np.isnan(both)]

    @property
    def mutual(self) -> Pairs:
        """Pairs in which each is the other's best."""
        a = np.flatnonzero(self.other_a >= 0)
        a = a[self.other_b[self.other_a[a]] == a]
        return Pairs(a, self.other_a[a], self.best_a[a])

    def forget(self) -> None:
        """Let go of all values but the best."""
        self._kept = None

    @property
    def share_mutual(self) -> float | None:
        """Of the latents of both sides that have a best partner, those whose best partner's best they are; None where
        none has one."""
        return 2 * len(self.mutual.a) / len(self.best) if len(self.best) else None

    def one_to_one(self) -> Pairs:
        """The pairing of the largest sum in which every judged latent of the smaller side has a partner of its own; of
        values that were not kept, `mutual`."""
        if self._kept is None:
            return self.mutual
        rows, columns = np.flatnonzero(~np.isnan(self.best_a)), np.flatnonzero(~np.isnan(self.best_b))
        values = self._kept[np.ix_(rows, columns)]
        # a pair that is not judged among latents that are is worse than any that is
        of_rows, of_columns = linear_sum_assignment(np.where(np.isnan(values), -2, values), maximize=True)
        value = values[of_rows, of_columns]
        judged = ~np.isnan(value)
        return Pairs(rows[of_rows[judged]], columns[of_columns[judged]], value[judged].astype(np.float64))


def _largest(filled: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest along an axis, NaN for none, and where it is, -1 for none."""
    where = filled.argmax(axis=axis)
    value = np.take_along_axis(filled, np.expand_dims(where, axis), axis).squeeze(axis)
    none = np.isneginf(value)
    return np.where(none, np.nan, value), np.where(none, -1, where)
