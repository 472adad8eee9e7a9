"""Pieces of an index's arithmetic, by hand."""

import numpy as np
import pytest
import torch

from autointerp.index.encode import NearMisses
from autointerp.index.gather import LatentEvents, Runs
from autointerp.index.statistics import moments, scaled, sorted_values
from sae.sparse import Pattern


def test_values_are_sorted_with_their_signs():
    value = np.array([2.0, -1.0, -3.0, 0.5, -0.0, 7.0, -7.0], np.float32)
    fired = Runs(np.array([0, 5, 7]), np.arange(7), np.zeros(7, np.int32))
    events = LatentEvents(fired.bounds, fired.place, fired.piece, 0, value, np.zeros(2), fired)
    assert sorted_values(events).tolist() == [-3.0, -1.0, 0.0, 0.5, 2.0, -7.0, 7.0]


def test_scaled_counts_add_up():
    counts = np.array([[3, 0, 4], [1, 1, 1], [0, 0, 0]])
    assert scaled(counts, np.array([7, 10, 0])).tolist() == [[3, 0, 4], [3, 4, 3], [0, 0, 0]]


def test_equal_values_have_no_skewness():
    value = np.float64(np.float32(0.1))
    found = moments(np.array([1000, 0]), np.array([[1000 * value**p, 0] for p in (1, 2, 3)]))
    assert found["skewness"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("n", [1, 3])
def test_near_misses_are_the_largest_silent_pre_activations_one_a_block(n: int):
    random = torch.Generator().manual_seed(0)
    misses, best = NearMisses(5, n), [[] for _ in range(5)]
    for block in range(6):
        pre_acts = torch.randn(4, 5, generator=random)
        pattern = Pattern.of_table(pre_acts.topk(2, dim=1).indices, 5)
        silent = pre_acts.masked_fill(pattern.scattered(torch.ones(8)) > 0, -torch.inf)
        for latent in range(5):
            value, row = silent[:, latent].max(dim=0)
            if value.isfinite():
                best[latent].append((value.item(), 4 * block + row.item()))
        misses.look(pre_acts.clone(), pattern, torch.arange(4 * block, 4 * block + 4))
    for latent in range(5):
        expected = sorted(best[latent], reverse=True)[:n]
        assert misses.value[latent, : len(expected)].tolist() == [value for value, _ in expected]
        assert misses.place[latent, : len(expected)].tolist() == [place for _, place in expected]
