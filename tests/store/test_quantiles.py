"""Quantiles of values among a latent's own, from what an index stores of it."""

import numpy as np
import pytest

from store.quantiles import STORED, shares_below


def row_of(values: np.ndarray, n_bins: int = 40) -> dict:
    """What an index stores of a latent with these active values."""
    ordered = np.sort(values)
    quantiles = {name: float(ordered[int(np.ceil(share * len(ordered))) - 1]) for name, share in STORED.items()}
    edges = np.linspace(min(values.min(), 0), values.max(), n_bins + 1)
    counts = np.histogram(values, edges)[0]
    return {
        "n_fired": len(values),
        "min": float(values.min()),
        "max": float(values.max()),
        "histogram": counts.tolist(),
        **quantiles,
    }


@pytest.mark.parametrize("low", [0.0, -3.0], ids=["positive", "signed"])
def test_they_are_the_true_ones_within_the_share_of_a_bin(low: float):
    values = np.random.default_rng(0).exponential(2.0, 5000) + 0.1 + low
    row, asked = row_of(values), np.linspace(values.min(), values.max(), 400)
    true = (values[None] <= asked[:, None]).mean(axis=1)
    assert np.abs(shares_below(row, asked) - true).max() <= max(row["histogram"]) / len(values)


def test_stored_quantiles_are_exact_and_ends_are_ends():
    values = np.random.default_rng(1).exponential(2.0, 3000) + 0.1
    row = row_of(values)
    found = shares_below(row, np.array([row[name] for name in STORED]))
    assert found == pytest.approx(list(STORED.values()), abs=1e-3)
    assert shares_below(row, np.array([row["max"], 10 * row["max"]])).tolist() == [1.0, 1.0]
    assert shares_below(row, np.array([row["min"] / 2])) < 1e-3


def test_they_never_fall_as_the_value_rises():
    values = np.random.default_rng(2).integers(1, 6, 50).astype(float)
    assert (np.diff(shares_below(row_of(values), np.linspace(0, 6, 300))) >= 0).all()


def test_of_a_single_value_it_is_all():
    assert shares_below(row_of(np.array([2.5])), np.array([2.5, 3.0])).tolist() == [1.0, 1.0]
