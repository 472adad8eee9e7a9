"""Measures of paired rows: against direct computations, under maps that leave them alone, and on torn pairs."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from sae.similarity import (
    StreamingCKA,
    StreamingHSIC,
    canonical_correlations,
    fit_linear,
    kept_directions,
    linear_cka,
    matched_layers,
    relative_similarity,
    shuffled,
    svcca,
)


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(d: int, seed: int = 5) -> Tensor:
    return torch.linalg.qr(gaussian(d, d, seed)).Q


def activations(n: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two sides of widths 12 and 9 that share half of what they hold, with means and a decaying spectrum."""
    shared = gaussian(n, 6, seed)
    x = shared @ gaussian(6, 12, seed=1) + gaussian(n, 12, seed=2) * torch.logspace(0, -1, 12) + 3
    y = shared @ gaussian(6, 9, seed=3) + gaussian(n, 9, seed=4) * torch.logspace(0, -1, 9) - 2
    return x, y


def r2(x: Tensor, y: Tensor) -> float | None:
    half = len(x) // 2
    return fit_linear(x[:half], y[:half]).r2(x[half:], y[half:])


def relative(x: Tensor, y: Tensor) -> float | None:
    return relative_similarity(x, y, torch.arange(30))


def debiased(x: Tensor, y: Tensor) -> float | None:
    return linear_cka(x, y).debiased


def biased(x: Tensor, y: Tensor) -> float | None:
    return linear_cka(x, y).biased


MEASURES = {"cka": biased, "cka_debiased": debiased, "svcca": svcca, "relative": relative, "r2": r2}


@pytest.fixture(params=sorted(MEASURES))
def measure(request):
    return MEASURES[request.param]


# --- what leaves a measure alone


def test_of_a_side_with_itself_it_is_one(measure):
    x, _ = activations()
    assert measure(x, x) == pytest.approx(1)


def test_orthogonal_maps_and_scale_of_either_side_change_nothing(measure):
    x, y = activations()
    expected = measure(x, y)
    assert 0.1 < expected < 0.99
    assert measure(7 * x @ orthogonal(12), y) == pytest.approx(expected)
    assert measure(x, 0.1 * y @ orthogonal(9)) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cka", "cka_debiased", "svcca", "r2"])
def test_a_shift_changes_nothing(name):
    x, y = activations()
    assert MEASURES[name](x + 1000, y - 30) == pytest.approx(MEASURES[name](x, y), rel=1e-6)


def test_an_invertible_map_of_what_is_fitted_changes_no_r2():
    x, y = activations()
    assert r2(x @ gaussian(12, 12, seed=8), y) == pytest.approx(r2(x, y))


def test_an_invertible_map_changes_no_canonical_correlation():
    x, y = activations()
    expected = svcca(x, y, variance_kept=1.0)
    assert svcca(x @ gaussian(12, 12, seed=8), y @ gaussian(9, 9, seed=9), variance_kept=1.0) == pytest.approx(expected)


def test_an_invertible_map_changes_svcca_where_other_directions_are_kept():
    """What it keeps is chosen by variance, which such a map changes: Kornblith et al. 2019, table 1."""
    x, y = activations()
    stretched = x * torch.logspace(0, 2, 12)
    assert kept_directions(stretched).shape[1] < kept_directions(x).shape[1]
    assert abs(svcca(stretched, y) - svcca(x, y)) > 0.01


# --- against direct computations


def gram_hsic(x: Tensor, y: Tensor) -> float:
    """tr(K H L H) over centred Gram matrices."""
    n = len(x)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    return (x @ x.t() @ centring @ y @ y.t() @ centring).trace().item()


def song_hsic(x: Tensor, y: Tensor) -> float:
    """Song et al. 2012, equation 5, term by term."""
    n = len(x)
    k, ell = ((side @ side.t()).fill_diagonal_(0) for side in (x, y))
    one = torch.ones(n, dtype=torch.float64)
    sums = (one @ k @ one) * (one @ ell @ one) / ((n - 1) * (n - 2))
    return (((k @ ell).trace() + sums - 2 / (n - 2) * (one @ k @ ell @ one)) / (n * (n - 3))).item()


def test_hsic_is_that_of_the_gram_matrices():
    x, y = activations(60)
    found = StreamingHSIC()
    for some, others in zip(x.split(17), y.split(17), strict=True):
        found.update(some, others)
    assert found.biased() == pytest.approx(gram_hsic(x, y))
    assert found.debiased() == pytest.approx(60 * 57 * song_hsic(x, y))


def test_cka_is_that_of_the_gram_matrices():
    x, y = activations(60)
    found = linear_cka(x, y)
    for value, hsic in ((found.biased, gram_hsic), (found.debiased, song_hsic)):
        assert value == pytest.approx(hsic(x, y) / (hsic(x, x) * hsic(y, y)) ** 0.5)


def test_cka_in_batches_is_cka_of_all_rows():
    x, y = activations()
    torn = shuffled(y, torch.Generator().manual_seed(0))
    streaming = StreamingCKA()
    for start in range(0, len(x), 33):
        streaming.update(*(side[start : start + 33] for side in (x, y, torn)))
    assert streaming.value() == pytest.approx(linear_cka(x, y))
    assert streaming.null() == pytest.approx(linear_cka(x, torn))


def test_canonical_correlations_are_those_of_whitened_covariances():
    x, y = activations()
    found = canonical_correlations(kept_directions(x, 1.0), kept_directions(y, 1.0))
    x, y = x - x.mean(0), y - y.mean(0)
    product = torch.linalg.solve(x.t() @ x, x.t() @ y) @ torch.linalg.solve(y.t() @ y, y.t() @ x)
    expected = torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sort(descending=True).values[:9]
    torch.testing.assert_close(found, expected)


def test_kept_directions_hold_the_share_that_was_asked_for():
    x, _ = activations()
    x = x - x.mean(0)
    total = x.square().sum()
    for share in (0.5, 0.9, 0.99):
        directions = kept_directions(x, share)
        torch.testing.assert_close(directions.t() @ directions, torch.eye(directions.shape[1], dtype=torch.float64))
        assert (directions.t() @ x).square().sum() / total >= share
        assert (directions[:, :-1].t() @ x).square().sum() / total < share


def test_directions_without_variance_are_left_out():
    x = gaussian(200, 4, seed=0) @ gaussian(4, 10, seed=1)
    assert kept_directions(x, 1.0).shape[1] == 4
    assert svcca(torch.ones(30, 4), gaussian(30, 4, seed=0)) is None


def test_least_squares_is_torchs():
    x, y = activations()
    fitted = fit_linear(x, y)
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    expected = torch.linalg.lstsq(torch.cat([x, ones], 1), y).solution
    torch.testing.assert_close(fitted.weight, expected[:-1])
    torch.testing.assert_close(fitted.y_mean - fitted.x_mean @ fitted.weight, expected[-1])


def test_dependent_columns_are_fitted_too():
    x, y = activations()
    assert r2(torch.cat([x, x], dim=1), y) == pytest.approx(r2(x, y))


# --- where the pairs are torn apart


def torn_values(measure, x: Tensor, y: Tensor, n: int = 30) -> Tensor:
    seeds = (torch.Generator().manual_seed(seed) for seed in range(n))
    return torch.tensor([measure(x, shuffled(y, seed)) for seed in seeds], dtype=torch.float64)


def is_near(values: Tensor, expected: float) -> bool:
    return abs(values.mean().item() - expected) < 4 * values.std().item() / len(values) ** 0.5


def test_debiased_cka_of_torn_pairs_is_nothing_on_average():
    values = torn_values(debiased, *activations(100))
    assert is_near(values, 0)


def test_cka_of_torn_pairs_is_its_bias():
    x, y = activations(100)
    spread = [(side - side.mean(0)).square().sum().item() for side in (x, y)]
    expected = spread[0] * spread[1] / 99 / (gram_hsic(x, x) * gram_hsic(y, y)) ** 0.5
    assert is_near(torn_values(biased, x, y), expected)


def test_squared_correlations_of_torn_pairs_are_the_larger_width_over_the_rows():
    x, y = activations(100)
    values = torn_values(
        lambda a, b: canonical_correlations(*(kept_directions(s, 1.0) for s in (a, b))).square().mean(), x, y
    )
    assert is_near(values, 12 / 99)


def test_r2_of_torn_pairs_is_below_zero_by_what_is_fitted_in_vain():
    x, y = gaussian(400, 12, seed=0), gaussian(400, 9, seed=1)
    # 200 rows fitted: the error of prediction is (1 + 1/n)(n − 2)/(n − d − 2) times the variance
    expected = 1 - (1 + 1 / 200) * 198 / 186
    assert is_near(torn_values(r2, x, y), expected)


def test_relative_representations_of_torn_pairs_are_nothing_without_a_mean():
    values = torn_values(relative, gaussian(400, 12, seed=0), gaussian(400, 9, seed=1))
    assert abs(values.mean()) < 0.03


def test_relative_representations_of_torn_pairs_are_alike_where_rows_share_a_mean():
    """Why it is nothing without its null: residual streams share a large mean."""
    x, y = gaussian(400, 12, seed=0), gaussian(400, 9, seed=1)
    assert torn_values(relative, x + 3, y + 3).mean() > 0.9


# --- what cannot be told


@pytest.mark.parametrize("name", ["svcca", "r2"])
def test_too_few_rows_for_the_width_are_refused(name):
    x = gaussian(23, 12, seed=0)
    with pytest.raises(ValueError, match="rows of width 12: at least 24 are needed"):
        MEASURES[name](x, x)


def test_other_numbers_of_rows_are_refused(measure):
    x, y = activations()
    with pytest.raises((ValueError, TypeCheckError)):
        measure(x, y[:-1])


@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_what_is_no_share_of_variance_is_refused(share):
    with pytest.raises(ValueError, match="variance_kept"):
        kept_directions(gaussian(30, 4, seed=0), share)


def test_what_does_not_vary_has_no_value():
    still, x = torch.ones(40, 4, dtype=torch.float64), gaussian(40, 4, seed=0)
    assert linear_cka(still, x) == (None, None)
    assert linear_cka(x[:0], x[:0]) == (None, None)
    assert linear_cka(x[:3], x[:3]).debiased is None
    assert r2(x, still) is None
    assert relative_similarity(0 * x, x, torch.arange(5)) is None


# --- layers


def rotated_copies(n_layers: int = 4) -> list[list[Tensor]]:
    """Two models, the second one's layers being the first one's turned around, with some noise."""
    first = [gaussian(300, 16, seed=n) * torch.logspace(0, -0.5, 16) for n in range(n_layers)]
    return [first, [x @ orthogonal(16, seed=50 + n) + 0.1 * gaussian(300, 16, 70 + n) for n, x in enumerate(first)]]


def test_layers_of_rotated_copies_are_all_matched(measure):
    models = rotated_copies()
    across = torch.tensor([[[[measure(x, y) for y in b] for x in a] for b in models] for a in models])
    assert matched_layers(across) == (1.0, 8)
    backwards = across.flip(3)
    assert matched_layers(backwards).accuracy == 0


def test_a_model_with_itself_is_not_looked_at_unless_asked_for():
    similarity = torch.full((2, 2, 3, 3), torch.nan, dtype=torch.float64)
    similarity[0, 1] = similarity[1, 0] = torch.eye(3)
    assert matched_layers(similarity) == (1.0, 6)
    assert matched_layers(similarity, exclude_self=False) == (0.5, 12)


def test_a_tie_is_no_match():
    assert matched_layers(torch.ones(2, 2, 3, 3, dtype=torch.float64)).accuracy == 0
