"""Decoder rows of two dictionaries: copies are found, random directions are not, and a partner is taken once."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sae import decoder_match
from sae.decoder_match import match_decoders, nearest, random_alike, repeated
from sae.geometry import random_like


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def test_a_shuffled_and_scaled_copy_is_found_whole():
    a = rows(50, 16)
    copy = a[torch.randperm(50, generator=generator())] * torch.rand(50, 1, generator=generator()).add(0.1)
    found = match_decoders(a, copy)
    assert found.one_to_one is not None
    assert found[:6] == pytest.approx((50, 50, 1, 1, 1, 1))
    assert found.one_to_one == pytest.approx((50, 1, 1))


def test_the_best_pairing_is_the_best_of_all(monkeypatch):
    monkeypatch.setattr(decoder_match, "BLOCK_ROWS", 2)
    a, b = rows(5, 3), rows(6, 3, seed=1)
    cosines = F.normalize(a, dim=1) @ F.normalize(b, dim=1).t()
    best = max(sum(cosines[i, j].item() for i, j in enumerate(taken)) for taken in permutations(range(6), 5))
    found = match_decoders(a, b, partner_cos=0.5)
    assert found.one_to_one is not None
    assert found.one_to_one.mean == pytest.approx(best / 5)
    assert found.mean_best_a == pytest.approx(cosines.amax(1).mean().item())
    assert found.mean_best_b == pytest.approx(cosines.amax(0).mean().item())
    assert found.share_a == pytest.approx((cosines.amax(1) >= 0.5).double().mean().item())
    assert found.share_b == pytest.approx((cosines.amax(0) >= 0.5).double().mean().item())


def test_one_partner_for_all_is_shared_once():
    """Many latents near one direction all have a best partner, but only one of them a partner of its own."""
    one = rows(1, 32)
    many = one + 0.01 * rows(20, 32, seed=1)
    found = match_decoders(many, torch.cat([one, rows(19, 32, seed=2)]))
    assert found.share_a == 1
    assert found.one_to_one is not None
    assert found.one_to_one.share == pytest.approx(1 / 20)


def test_the_opposite_direction_is_no_partner():
    assert match_decoders(torch.eye(3)[:1], -torch.eye(3)[:1]).mean_best_a == -1


def test_rows_of_zeros_are_left_out():
    a = torch.cat([rows(4, 8), torch.zeros(3, 8)])
    assert match_decoders(a, a).n_a == 4
    with pytest.raises(ValueError, match="all decoder rows are zero"):
        match_decoders(a, torch.zeros(3, 8))


def test_pairing_is_left_out_where_it_is_not_asked_for():
    assert match_decoders(rows(4, 8), rows(4, 8, seed=1), one_to_one=False).one_to_one is None


def test_random_directions_have_the_size_and_nothing_else():
    b = rows(300, 24) + 2
    drawn = random_like(b, generator(1))
    assert drawn.shape == b.shape
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(300).double())
    assert drawn.mean(dim=0).norm() < 0.15
    assert match_decoders(b, drawn).share_a < 0.1


def test_random_directions_may_have_the_mean_and_covariance():
    """A common mean alone makes partners."""
    b = rows(2000, 8) * torch.tensor([2.0, 2, 1, 1, 0.3, 0.3, 0.1, 0.1]) + 3
    directions, drawn = F.normalize(b, dim=1), random_alike(b, generator(1))
    torch.testing.assert_close(drawn.mean(dim=0), directions.mean(dim=0), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.t().cov(), directions.t().cov(), atol=0.02, rtol=0)
    assert match_decoders(b, drawn).share_b > match_decoders(b, random_like(b, generator(1))).share_b + 0.5


def test_controls_are_the_same_for_the_same_seed():
    b = rows(30, 8)
    for draw in (random_like, random_alike):
        assert torch.equal(draw(b, generator(3)), draw(b, generator(3)))
        assert not torch.equal(draw(b, generator(3)), draw(b, generator(4)))


def test_repeated_rows_are_those_after_their_first(monkeypatch):
    monkeypatch.setattr(decoder_match, "BLOCK_ROWS", 4)
    base = rows(6, 16)
    all_rows = torch.cat([base, -2 * base[[1, 5]], rows(2, 16, seed=1), base[[1]]])
    assert repeated(all_rows, 0.999).tolist() == [False] * 6 + [True, True, False, False, True]


def test_the_nearest_row_is_that_of_the_largest_cosine_in_both_directions_a_block_at_a_time_or_not(monkeypatch):
    a, b = rows(7, 16, seed=3), rows(11, 16, seed=4)
    unit_a, unit_b = (one.double() / one.double().norm(dim=1, keepdim=True) for one in (a, b))
    cosines = unit_a @ unit_b.t()
    for block in (1024, 3):
        monkeypatch.setattr("sae.decoder_match.BLOCK_ROWS", block)
        of_a, of_b = nearest(a, b)
        torch.testing.assert_close(of_a.cosine, cosines.amax(dim=1))
        torch.testing.assert_close(of_b.cosine, cosines.amax(dim=0))
        assert of_a.other.tolist() == cosines.argmax(dim=1).tolist()
        assert of_b.other.tolist() == cosines.argmax(dim=0).tolist()
