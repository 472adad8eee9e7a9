"""Atoms: moments, coherence and q* against brute force; what the theory of Hu et al. 2025 predicts, and its control."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sae import Threshold, ThresholdConfig, atoms, geometry
from sae.atoms import (
    StreamingMoment,
    atomic,
    coherence,
    euclidean,
    gram,
    mean_centred,
    rip_bound,
    sparse_errors,
    uniqueness,
    uniqueness_bound,
    whitener,
)
from sae.geometry import random_like

torch.set_num_threads(1)

seeds = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def cosines_of(rows: Tensor) -> Tensor:
    """Of all pairs, by the definition."""
    rows = rows.double() / rows.double().norm(dim=1, keepdim=True)
    i, j = torch.triu_indices(len(rows), len(rows), 1)
    return (rows[i] * rows[j]).sum(dim=1)


def invertible(d: int, seed: int) -> Tensor:
    """A map with singular values from 1/3 to 3."""
    left, right = (torch.linalg.qr(gaussian(d, d, seed + n)).Q for n in range(2))
    return left * torch.logspace(-0.5, 0.5, d, dtype=torch.float64) @ right


def planted(n: int, atoms_: Tensor, k: int, seed: int, low: float = 0.8, high: float = 1.2) -> tuple[Tensor, Tensor]:
    """Rows that are sums of k atoms with coefficients in [low, high], and which."""
    present = torch.rand(n, len(atoms_), generator=generator(seed)).argsort(dim=1) < k
    size = low + (high - low) * torch.rand(n, len(atoms_), generator=generator(seed + 1), dtype=torch.float64)
    return (present * size) @ atoms_, present


H, N_ATOMS, K = 128, 256, 2


@pytest.fixture(scope="module")
def distorted() -> tuple[Tensor, Tensor, Tensor]:
    """256 atoms in 128 dimensions under an anisotropic map, rows of 2 atoms each, and which. The map's singular values
    fall by e^7.5: that alone decides how far from 90° Euclidean angles are."""
    spread = torch.logspace(0, -7.5 / math.log(10), H, dtype=torch.float64)
    truth = geometry.unit_rows(gaussian(N_ATOMS, H)) * spread
    x, present = planted(20_000, truth, K, seed=1)
    return truth, x, present


def test_whitening_brings_the_planted_atoms_angles_to_those_of_a_tight_frame(distorted):
    """Whitened by their own second moment, 256 atoms in 128 dimensions are nearly a unit tight frame, whose root mean
    square cosine is sqrt((256/128 − 1) / 255), or 3.6°."""
    truth, x, _ = distorted
    euclid, whitened = coherence(truth), coherence(truth, atomic(gram(x.split(4096), ridge=0.0)))
    assert euclid.angles()[1] == pytest.approx(14, abs=2)
    assert whitened.angles()[1] == pytest.approx(3.6, abs=0.5)
    assert whitened.maximum < euclid.maximum


def test_an_oracle_threshold_sae_finds_the_support_of_every_row(distorted):
    """Hu et al. 2025: W_enc = S̃ Dᵀ, W_dec = D, τ between what other atoms leak and the smallest coefficient."""
    truth, x, present = distorted
    inverse = torch.linalg.inv(gram([x], ridge=0.0))
    encoder = inverse @ truth.t()
    sae = Threshold(ThresholdConfig(d_in=H, d_sae=N_ATOMS, target_l0=float(K))).double()
    with torch.no_grad():
        sae.W_dec.copy_(truth)
        sae.W_enc.copy_(encoder / (encoder * truth.t()).sum(dim=0))
        sae.b_dec.zero_()
        sae.log_threshold.fill_(math.log(0.5))
    found = sae.encode(x[:5000]).dense() > 0
    assert (found == present[:5000]).all(dim=1).double().mean() >= 0.99


@pytest.mark.parametrize("k", [2, 4, 16])
def test_q_star_of_random_directions_is_that_of_chance(k):
    """2Φ(√H / (2K − 1)) − 1: why no q* means anything without the random control beside it."""
    drawn = random_like(torch.zeros(1000, H), generator(0))
    found = uniqueness(coherence(drawn), torch.full((10,), k))
    chance = math.erf(math.sqrt(H) / (2 * k - 1) / math.sqrt(2))
    assert found.q_star == pytest.approx(chance, abs=0.02)
    assert found.l0_at_q_star == found.l0_median == k


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_atomic_coherence_is_that_of_any_linear_map_of_rows_and_atoms_together(seed):
    x, dictionary, linear = gaussian(400, 8, seed), gaussian(30, 8, seed + 1), invertible(8, seed + 2)
    before = coherence(dictionary, atomic(gram([x], ridge=0.0)))
    after = coherence(dictionary @ linear, atomic(gram([x @ linear], ridge=0.0)))
    torch.testing.assert_close(before.cosines, after.cosines, atol=1e-4, rtol=0)
    assert before.maximum == pytest.approx(after.maximum, abs=1e-4)


def test_euclidean_coherence_is_not():
    dictionary, linear = gaussian(30, 8), invertible(8, 0)
    before, after = (coherence(rows) for rows in (dictionary, dictionary @ linear))
    assert (before.cosines - after.cosines).abs().max() > 0.1


@settings(max_examples=15, deadline=None)
@given(seed=seeds, n_chunks=st.integers(1, 9), offset=st.floats(-1e4, 1e4))
def test_moments_in_pieces_equal_those_of_all_rows(seed, n_chunks, offset):
    x = gaussian(50, 4, seed) + offset
    moment, covariance = x.t() @ x / 50, torch.cov(x.t(), correction=0)
    size = x.square().mean().item()
    torch.testing.assert_close(gram(x.chunk(n_chunks), ridge=0.0), moment, atol=1e-12 * size, rtol=1e-10)
    torch.testing.assert_close(gram(x.chunk(n_chunks), centred=True, ridge=0.0), covariance, atol=1e-6, rtol=1e-6)


def test_the_ridge_is_a_share_of_the_mean_eigenvalue():
    x = gaussian(50, 4)
    added = gram([x], ridge=0.5) - gram([x], ridge=0.0)
    torch.testing.assert_close(added, 0.5 * (x.square().sum() / 50 / 4) * torch.eye(4, dtype=torch.float64))


def test_a_moment_of_nothing_or_with_a_negative_ridge_is_refused():
    with pytest.raises(ValueError, match="no row"):
        gram([])
    with pytest.raises(ValueError, match="ridge"):
        gram([gaussian(5, 2)], ridge=-1.0)


def test_rows_whitened_by_their_own_moment_have_the_identity():
    x = gaussian(300, 6) @ invertible(6, 0) + 3.0
    white = x @ whitener(gram([x], ridge=0.0))
    torch.testing.assert_close(gram([white], ridge=0.0), torch.eye(6, dtype=torch.float64))


def test_a_moment_without_an_inverse_is_refused_and_a_ridge_mends_it():
    x = gaussian(3, 6)
    with pytest.raises(ValueError, match="ridge > 0"):
        whitener(gram([x], ridge=0.0))
    assert whitener(gram([x])).isfinite().all()


@pytest.mark.parametrize("block", [1, 100, 2**24])
def test_coherence_has_every_pair_once(monkeypatch, block):
    monkeypatch.setattr(geometry, "BLOCK_COSINES", block)
    rows = gaussian(25, 6)
    expected, found = cosines_of(rows), coherence(rows)
    assert found.is_exact
    assert found.n_pairs == 300
    torch.testing.assert_close(found.cosines.double().sort().values, expected.sort().values, atol=1e-6, rtol=0)
    assert found.maximum == pytest.approx(expected.abs().max().item(), abs=1e-12)
    assert found.quantile(1.0) == found.maximum
    assert found.share_below(0.3) == (expected.abs() < 0.3).double().mean().item()


def test_sampled_pairs_keep_the_exact_maximum_and_the_quantiles_of_all(monkeypatch):
    rows = gaussian(300, 16)
    rows[211] = -rows[5] + 0.01
    exact = coherence(rows)
    monkeypatch.setattr(atoms, "EXACT_PAIRS", 1000)
    monkeypatch.setattr(atoms, "SAMPLED_PAIRS", 20_000)
    monkeypatch.setattr(geometry, "BLOCK_COSINES", 300 * 70)
    sampled = coherence(rows, seed=1)
    assert not sampled.is_exact
    assert sampled.maximum == exact.maximum == sampled.quantile(1.0)
    for q in (0.1, 0.5, 0.9, 0.99):
        assert sampled.quantile(q) == pytest.approx(exact.quantile(q), abs=0.02)
    assert torch.equal(sampled.cosines, coherence(rows, seed=1).cosines)
    assert not torch.equal(sampled.cosines, coherence(rows, seed=2).cosines)
    assert sampled.share_below(sampled.maximum) < 1


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_coherence_ignores_row_scale_sign_and_order(seed):
    rows = gaussian(12, 5, seed)
    scale = gaussian(12, 1, seed + 1)
    order = torch.randperm(12, generator=generator(seed))
    torch.testing.assert_close(coherence((scale * rows)[order]).sizes, coherence(rows).sizes, atol=1e-6, rtol=0)


def test_a_shared_direction_goes_with_the_mean():
    rows = geometry.unit_rows(gaussian(200, 32))
    shifted = rows + 3 * torch.ones(32, dtype=torch.float64) / 32**0.5
    assert coherence(shifted).angles()[0] < 30
    assert coherence(shifted, mean_centred).angles()[0] == pytest.approx(90, abs=1)


def test_a_zero_atom_and_a_single_one_are_refused():
    with pytest.raises(ValueError, match="zero"):
        coherence(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="at least 2"):
        coherence(torch.ones(1, 3))


def test_coordinates_are_orthogonal_and_still_no_atoms_of_full_rows():
    found = coherence(torch.eye(8), euclidean)
    assert found.maximum == 0
    assert found.angles() == pytest.approx((90, 0))


def test_bounds_by_hand():
    assert rip_bound(3.0, 0.25) == 0.5
    assert uniqueness_bound(1.0) == 1
    assert uniqueness_bound(3.0) == pytest.approx(0.2)
    assert uniqueness_bound(0.0) == math.inf


@settings(max_examples=25, deadline=None)
@given(seed=seeds, most=st.integers(0, 6))
def test_q_star_equals_the_definition_on_a_grid(seed, most):
    """sup{q : μ_q < 1 / (2 K_q − 1)}, with quantiles as the smallest values that a share q does not exceed."""
    found = coherence(gaussian(9, 6, seed))
    l0 = torch.randint(0, most + 1, (11,), generator=generator(seed))
    fine = 36 * 11
    sizes, counts = found.sizes.tolist(), sorted(float(k) for k in l0)
    # q = i / fine is reached by the ceil(i / 11)th of 36 pairs and the ceil(i / 36)th of 11 rows
    holds = [sizes[-(-i // 11) - 1] < uniqueness_bound(counts[-(-i // 36) - 1]) for i in range(1, fine + 1)]
    fulfilled = [i / fine for i, does in enumerate(holds, 1) if does]
    assert uniqueness(found, l0).q_star == pytest.approx(max(fulfilled, default=0.0))


def test_the_curve_crosses_its_bound_at_q_star():
    found = coherence(gaussian(60, 30))
    l0 = torch.randint(1, 5, (500,), generator=generator(0))
    quantiles = [n / 1000 for n in range(1, 1001)]
    curve = uniqueness(found, l0, quantiles)
    below = [q for q, mu, bound in zip(quantiles, curve.mu, curve.bound, strict=True) if mu < bound]
    assert max(below) == pytest.approx(curve.q_star, abs=2e-3)
    assert list(curve.mu) == sorted(curve.mu)
    assert list(curve.bound) == sorted(curve.bound, reverse=True)


def test_q_star_without_rows_is_refused():
    with pytest.raises(ValueError, match="L0"):
        uniqueness(coherence(gaussian(5, 3)), torch.zeros(0))


def test_sparse_errors_vanish_for_sums_of_that_many_atoms_and_not_for_fewer():
    dictionary, centre = gaussian(40, 32), gaussian(1, 32, 9)[0]
    x = planted(50, geometry.unit_rows(dictionary), 2, 3)[0] + centre
    assert sparse_errors(x, dictionary, 4, centre).mean() < 1e-3
    assert sparse_errors(x, dictionary, 1, centre).min() > 1e-2


def test_sparse_errors_from_coordinates_are_what_the_largest_leave():
    x = gaussian(20, 10)
    left = x.square().sort(dim=1).values[:, :7].sum(dim=1)
    zero = torch.zeros(10, dtype=torch.float64)
    torch.testing.assert_close(sparse_errors(x, torch.eye(10), 3, zero), left, rtol=1e-5, atol=1e-5)


def test_streaming_moment_says_its_mean_and_ignores_empty_batches():
    x = gaussian(20, 3)
    moment = StreamingMoment(3)
    moment.update(x[:0])
    moment.update(x)
    torch.testing.assert_close(moment.mean, x.mean(dim=0))
    assert moment.n_rows == 20
