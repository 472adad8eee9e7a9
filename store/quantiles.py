"""How high an activation is among the latent's own: its quantile, read off what the index stores of each latent.

Of each latent there are the exact counts of `histogram`, in bins of equal width, and the exact quantiles `q50` to
`q999`, the least and the largest value. Their shares are known at those places; between two of them it is a straight
line, so that a quantile is off by less than the share of one bin's values, and by less than 0.001 above q99.9.
"""

from typing import Any

import numpy as np

from store.feature_index import FeatureIndex

STORED = {"q50": 0.5, "q90": 0.9, "q99": 0.99, "q999": 0.999}
"""Columns of `latents`, and the share of active values at or below them."""
ROWS = (
    'SELECT latent, n_fired, "min", "max", q50, q90, q99, q999, histogram FROM latents '
    "WHERE latent IN (SELECT unnest(?::BIGINT[])) AND n_fired > 0"
)


def own_quantiles(index: FeatureIndex, latent: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`[n]` share of a latent's active values on the indexed text that are at or below a value; NaN of a latent that
    never fired there.

    Args:
        index: of the text.
        latent: `[n]` whose value each is.
        value: `[n]` active values.
    """
    out = np.full(len(latent), np.nan)
    order = np.argsort(latent, kind="stable")
    found, starts = np.unique(latent[order], return_index=True)
    stops = dict(zip(found.tolist(), zip(starts, [*starts[1:], len(order)], strict=True), strict=True))
    for row in index.arrow(ROWS, [found.tolist()]).to_pylist():
        start, stop = stops[row["latent"]]
        mine = order[start:stop]
        out[mine] = shares_below(row, value[mine])
    return out


def shares_below(row: dict[str, Any], value: np.ndarray) -> np.ndarray:
    """The same for one latent that fired, whose row of `latents` is at hand."""
    counts = np.asarray(row["histogram"], float)
    edges = np.linspace(min(row["min"], 0.0), row["max"], len(counts) + 1)
    at = np.concatenate([edges, [row["min"]], [row[name] for name in STORED]])
    below = np.concatenate([[0.0], counts.cumsum() / counts.sum(), [1 / row["n_fired"]], list(STORED.values())])
    order = np.lexsort((below, at))
    # Rounding of a value at a bin's edge could make a share fall back by that of one value.
    return np.interp(value, at[order], np.maximum.accumulate(below[order]), left=0.0, right=1.0)
