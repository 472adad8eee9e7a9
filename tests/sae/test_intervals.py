"""Intervals: that they hold the truth as often as they say, count documents, not tokens, and say when they cannot."""

import numpy as np
import pytest

from sae.intervals import FEWEST_GROUPS, GroupSums, mean_interval, ratio_interval, seeds_interval


def test_an_interval_over_documents_holds_the_truth_about_as_often_as_it_says():
    """Tokens of a document share its mean: counting them as independent would hold it far too rarely."""
    random, covered = np.random.default_rng(0), 0
    for trial in range(200):
        means = random.normal(3.0, 1.0, 40)
        tokens = random.normal(np.repeat(means, 25), 1.0)
        sums = GroupSums(40)
        sums.add("mean", np.repeat(np.arange(40), 25), tokens)
        found = sums.interval("mean", seed=trial)
        assert found is not None
        covered += found.low <= 3.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize("n", [6, 10, 20])
def test_intervals_over_few_documents_of_uneven_length_are_wide_enough(n: int):
    random, covered = np.random.default_rng(1), 0
    for trial in range(200):
        sizes = random.integers(5, 60, n)
        groups = np.repeat(np.arange(n), sizes)
        tokens = random.normal(np.repeat(random.normal(3.0, 1.0, n), sizes), 1.0)
        sums = GroupSums(n)
        sums.add("mean", groups, tokens)
        found = sums.interval("mean", seed=trial)
        assert found is not None
        covered += found.low <= 3.0 <= found.high
    assert covered / 200 >= 0.9


def test_a_ratio_is_that_of_the_sums_and_not_the_mean_of_ratios():
    sums = GroupSums(3)
    sums.add("share", np.array([0, 0, 2]), np.array([1.0, 2.0, 3.0]), np.array([10.0, 10.0, 1.0]))
    assert sums.value("share") == pytest.approx(6 / 21)
    assert sums.n_groups("share") == 2


def test_what_is_not_finite_is_left_out_of_both_sums():
    sums = GroupSums(2)
    sums.add("cosine", np.array([0, 1, 1]), np.array([0.5, np.nan, 0.7]))
    assert sums.value("cosine") == pytest.approx(0.6)


def test_few_documents_have_no_interval():
    n = FEWEST_GROUPS - 1
    assert ratio_interval(np.ones(n), np.ones(n)) is None
    assert ratio_interval(np.ones(n + 1), np.ones(n + 1)) == (1.0, 1.0)
    # groups that have no term are no documents
    assert ratio_interval(np.r_[np.ones(n), np.zeros(50)], np.r_[np.ones(n), np.zeros(50)]) is None


def test_nothing_to_divide_by_is_no_interval():
    assert ratio_interval(np.ones(20), np.zeros(20)) is None
    assert GroupSums(3).value("nothing") is None


def test_intervals_depend_on_the_seed_alone():
    values = np.random.default_rng(1).normal(size=50)
    assert mean_interval(values, 3) == mean_interval(values, 3)
    assert mean_interval(values, 3) != mean_interval(values, 4)


def test_an_interval_over_seeds_is_students():
    found = seeds_interval(np.array([1.0, 2.0, 3.0]))
    assert found is not None
    # t(0.975, 2 degrees of freedom) = 4.302653; standard error 1/√3
    assert found.high - 2.0 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert seeds_interval(np.array([1.0])) is None
