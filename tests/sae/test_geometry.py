"""Decoder geometry against dense float64 oracles, its invariances, and what the controls keep."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sae import geometry
from sae.geometry import (
    CONTROLS,
    NONE,
    effective_rank,
    nearest,
    participation_ratio,
    permuted_like,
    random_like,
    spectrum,
)

torch.set_num_threads(1)

seeds = st.integers(0, 2**31)


def gaussian(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def oracle_nearest(rows: Tensor) -> tuple[Tensor, Tensor]:
    cosines = F.cosine_similarity(rows.double().unsqueeze(1), rows.double().unsqueeze(0), dim=2)
    cosines.fill_diagonal_(-2)
    return tuple(cosines.max(dim=1))


@pytest.mark.parametrize("block", [50, 2**24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_equals_the_dense_float64_oracle_in_any_blocks(monkeypatch, block, dtype):
    monkeypatch.setattr(geometry, "BLOCK_COSINES", block)
    rows = gaussian(37, 5, dtype=dtype)
    cosine, neighbour = oracle_nearest(rows)
    found = nearest(rows)
    torch.testing.assert_close(found.cosine, cosine, rtol=0, atol=1e-12)
    assert torch.equal(found.neighbour, neighbour)


def test_nearest_by_hand():
    found = nearest(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, -1.0]]))
    assert found.cosine.tolist() == pytest.approx([1.0, 1.0, 0.0, -(0.5**0.5)])
    assert found.neighbour.tolist()[:2] == [1, 0]


def test_dead_latents_have_no_neighbour_and_are_none():
    rows = gaussian(20, 4)
    rows[7] = rows[3]
    alive = torch.ones(20, dtype=torch.bool)
    alive[7] = False
    found, without = nearest(rows, alive), nearest(rows[alive])
    assert found.cosine[7].isnan()
    assert found.neighbour[7] == NONE
    torch.testing.assert_close(found.cosine[alive], without.cosine)
    assert 7 not in found.neighbour.tolist()


def test_a_zero_direction_is_left_out_and_one_direction_has_no_neighbour():
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    found = nearest(rows)
    assert found.cosine.tolist() == pytest.approx([0.5**0.5, float("nan"), 0.5**0.5], nan_ok=True)
    assert nearest(rows[:2]).cosine.isnan().all()
    assert nearest(rows[:0]).cosine.shape == (0,)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_geometry_is_invariant_under_rotation_row_scale_and_order(seed):
    rows = gaussian(12, 5, seed)
    rotation = torch.linalg.qr(gaussian(5, 5, seed + 1)).Q
    scale = 0.1 + gaussian(12, 1, seed + 2).abs()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    moved = (scale * rows @ rotation)[order]
    torch.testing.assert_close(nearest(moved).cosine, nearest(rows).cosine[order])
    torch.testing.assert_close(spectrum(moved), spectrum(rows))


@pytest.mark.parametrize("shape", [(30, 6), (6, 30), (6, 6)])
def test_spectrum_equals_singular_values_of_unit_rows(shape):
    rows = gaussian(*shape)
    torch.testing.assert_close(spectrum(rows), torch.linalg.svdvals(F.normalize(rows, dim=1)), rtol=0, atol=1e-7)


def test_ranks_by_hand():
    """σ = 3, 1: p = 3/4, 1/4; exp(−Σ p log p) = 4 / 27^(1/4); (9 + 1)² / (81 + 1)."""
    values = torch.tensor([3.0, 1.0])
    assert effective_rank(values) == pytest.approx(4 / 27**0.25)
    assert participation_ratio(values) == pytest.approx(100 / 82)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats(0.01, 100), min_size=1, max_size=9), scale=st.floats(0.01, 100))
def test_ranks_lie_between_one_and_their_number_and_have_no_unit(values, scale):
    singular = torch.tensor(values, dtype=torch.float64)
    for rank in (effective_rank, participation_ratio):
        assert 1 - 1e-9 <= rank(singular) <= len(values) + 1e-9
        assert rank(scale * singular) == pytest.approx(rank(singular))
        assert rank(torch.cat([singular, torch.zeros(3)])) == pytest.approx(rank(singular))
    assert participation_ratio(singular) <= effective_rank(singular) + 1e-9


@pytest.mark.parametrize("rank", [effective_rank, participation_ratio])
def test_equal_singular_values_have_full_rank(rank):
    assert rank(torch.full((7,), 0.3)) == pytest.approx(7)


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_controls_are_unit_rows_and_repeat_with_their_seed(name):
    directions = gaussian(20, 6, dtype=torch.float32)
    drawn = [CONTROLS[name](directions, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*drawn)
    assert drawn[0].dtype == torch.float32
    assert drawn[0].shape == ((6, 6) if name == "neurons" else (20, 6))
    torch.testing.assert_close(drawn[0].norm(dim=1), torch.ones(len(drawn[0])))


def test_the_permuted_control_keeps_each_coordinates_entries_and_no_direction():
    """Rows of one scale, so that bringing them to norm 1 again changes no entry."""
    signs = gaussian(40, 8).sign() / 8**0.5
    permuted = permuted_like(signs, torch.Generator().manual_seed(0))
    torch.testing.assert_close(permuted.sort(dim=0).values, signs.sort(dim=0).values)
    assert not torch.allclose(permuted, signs)


def test_random_directions_are_uniform():
    drawn = random_like(torch.zeros(20_000, 3), torch.Generator().manual_seed(0))
    assert drawn.mean(dim=0).abs().max() < 0.02
    torch.testing.assert_close(drawn.t() @ drawn / len(drawn), torch.eye(3) / 3, atol=0.01, rtol=0)
