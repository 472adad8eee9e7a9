"""Means, comparisons and agreement against closed forms, other libraries and planted truths."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test, t
from sklearn.metrics import cohen_kappa_score

from autointerp.latent import Score
from autointerp.statistics import (
    calibration,
    clustered_mean,
    cohen_kappa,
    compare,
    correlated,
    correlation_matrix,
    holm,
    latents_needed,
    minus,
)


def by_latent(values: np.ndarray) -> dict[int, float | None]:
    return dict(enumerate(values.tolist()))


def test_with_one_row_a_latent_the_clustered_interval_is_students():
    values = np.random.default_rng(0).normal(0.7, 0.1, 12)
    found = clustered_mean(values.tolist(), list(range(12)))
    half = t.ppf(0.975, 11) * values.std(ddof=1) / math.sqrt(12)
    assert found.interval == pytest.approx((values.mean() - half, values.mean() + half))
    assert (found.n_groups, found.n_rows, found.n_missing) == (12, 12, 0)


def test_scoring_every_latent_ten_times_over_makes_nothing_surer():
    values = np.random.default_rng(0).normal(0.7, 0.1, 12)
    once = clustered_mean(values.tolist(), list(range(12)))
    again = clustered_mean(np.repeat(values, 10).tolist(), np.repeat(range(12), 10).tolist())
    assert again.interval == pytest.approx(once.interval)


def test_the_clustered_interval_covers_the_mean_with_latents_of_unequal_numbers_of_rows():
    random, covered = np.random.default_rng(0), 0
    sizes = np.array([1, 1, 2, 2, 3, 3, 4, 5, 6, 8])
    latents = np.repeat(np.arange(10), sizes)
    for _ in range(1000):
        values = random.normal(0, 1, 10)[latents] + random.normal(0, 1, len(latents))
        low, high = clustered_mean(values.tolist(), latents.tolist()).interval or (0, 0)
        covered += low <= 0 <= high
    assert 0.92 <= covered / 1000 <= 0.98


def test_rows_without_a_value_are_counted_and_never_zeros():
    found = clustered_mean([0.5, None, 0.7], [0, 1, 2])
    assert (found.value, found.n_groups, found.n_missing) == (pytest.approx(0.6), 2, 1)
    assert clustered_mean([None], [0]).value is None


def test_a_planted_difference_is_found_with_its_interval_and_its_number_of_latents():
    random = np.random.default_rng(1)
    common = random.normal(0.7, 0.2, 60)
    a, b = by_latent(common + random.normal(0.05, 0.05, 60)), by_latent(common)
    found = compare(a, b | {99: 0.4})
    assert found.interval is not None
    assert found.interval[0] < 0.05 < found.interval[1]
    assert found.p_value is not None
    assert 0 < found.p_value < 0.001
    assert (found.n_latents, found.n_unpaired) == (60, 1)


def test_without_a_difference_p_values_are_spread_evenly():
    random = np.random.default_rng(2)
    p = [compare(by_latent(random.normal(0, 1, 8)), by_latent(np.zeros(8))).p_value or 0.0 for _ in range(400)]
    for level in (0.05, 0.25, 0.5):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / 400))


def test_latents_that_share_an_explanation_are_one_draw_of_it():
    random, groups = np.random.default_rng(5), {latent: latent - latent % 5 for latent in range(150)}
    covered, found_something, n = 0, 0, 400
    for _ in range(n):
        values = np.repeat(random.normal(0, 0.1, 30), 5) + random.normal(0, 0.05, 150)
        found = compare(by_latent(values), by_latent(np.zeros(150)), groups=groups)
        assert found.interval is not None
        assert found.p_value is not None
        covered += found.interval[0] <= 0 <= found.interval[1]
        found_something += found.p_value < 0.05
        assert (found.n_latents, found.n_groups) == (150, 30)
    assert covered / n == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / n))
    assert found_something / n == pytest.approx(0.05, abs=3 * math.sqrt(0.95 * 0.05 / n))


def test_one_group_of_latents_has_a_difference_and_nothing_to_doubt_it_by():
    found = compare(by_latent(np.array([1.0, 2.0])), by_latent(np.zeros(2)), groups={0: 1, 1: 1})
    assert (found.difference, found.interval, found.p_value, found.spread) == (1.5, None, None, None)


def test_the_p_value_of_few_latents_is_that_of_all_sign_flips():
    values = np.random.default_rng(3).normal(0.4, 1, 9)
    oracle = permutation_test((values, np.zeros(9)), lambda x, y: np.mean(x - y), permutation_type="samples")
    assert compare(by_latent(values), by_latent(np.zeros(9))).p_value == pytest.approx(oracle.pvalue)


def test_too_few_latents_give_no_interval_and_no_p_value():
    assert compare({}, {1: 0.5}).difference is None
    one = compare({1: 0.75}, {1: 0.5})
    assert (one.difference, one.interval, one.p_value, one.n_latents) == (0.25, None, None, 1)


def test_as_many_latents_as_needed_find_the_effect_as_often_as_the_power_says():
    n = latents_needed(0.5, 1.0, power=0.8)
    assert n == 34
    random = np.random.default_rng(4)
    tests = random.normal(0.5, 1, (4000, n))
    z = tests.mean(1) / (tests.std(1, ddof=1) / math.sqrt(n))
    assert np.mean(np.abs(z) > t.ppf(0.975, n - 1)) == pytest.approx(0.8, abs=0.025)


def test_an_effect_of_zero_is_refused():
    with pytest.raises(ValueError, match="choose an effect other than 0"):
        latents_needed(0.0, 1.0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


RATINGS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=40)


@pytest.mark.parametrize("weights", ["nominal", "linear", "quadratic"])
@given(pairs=RATINGS)
def test_kappa_is_that_of_scikit_learn(weights: str, pairs: list[tuple[int, int]]):
    left, right = map(list, zip(*pairs, strict=True))
    found = cohen_kappa(left, right, weights)  # pyright: ignore[reportArgumentType]
    if found.value is not None:
        by = None if weights == "nominal" else weights
        assert found.value == pytest.approx(cohen_kappa_score(left, right, weights=by, labels=range(1, 6)), abs=1e-9)
    else:
        assert len({*left, *right}) == 1


def test_the_interval_of_kappa_covers_a_planted_agreement():
    random, covered = np.random.default_rng(5), 0
    for _ in range(500):  # agree in 60% and otherwise at random among two: kappa is 0.6
        left = random.integers(0, 2, 100)
        right = np.where(random.random(100) < 0.6, left, random.integers(0, 2, 100))
        low, high = cohen_kappa(left.tolist(), right.tolist()).interval or (0, 0)
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 500 <= 0.98


def test_raters_who_never_vary_have_no_kappa():
    assert cohen_kappa([3, 3], [3, 3]).value is None


def test_correlation_is_of_the_latents_that_both_scorers_have():
    a: dict[int, float | None] = {i: i / 10 for i in range(10)} | {20: None}
    b: dict[int, float | None] = {i: i**2 + (i == 4) * 30.0 for i in range(2, 12)}
    found = correlation_matrix({"one": a, "other": b})[("one", "other")]
    assert found.n == 8
    assert found.value is not None
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert correlated([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).value is None


def test_the_calibration_curve_counts_every_probability_once():
    bins = calibration([1.0, 0.0, 1.0], [0.05, 0.0, 1.0])
    assert [each.n for each in bins] == [2, *[0] * 8, 1]
    assert bins[0].share_true == 0.5
    assert bins[4].share_true is None


def test_a_score_less_its_null_has_an_interval_about_the_difference():
    score, null = Score(0.8, (0.7, 0.86), 0.5, 20, 0), Score(0.5, (0.4, 0.6), 0.5, 20, 0)
    difference, (low, high) = minus(score, null) or (0.0, (0.0, 0.0))
    assert difference == pytest.approx(0.3)
    assert (low, high) == pytest.approx((0.3 - math.hypot(0.1, 0.1), 0.3 + math.hypot(0.06, 0.1)))
    assert minus(score, Score(None, None, 0.5, 0, 3)) is None
