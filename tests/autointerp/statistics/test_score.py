"""Metrics against scikit-learn and by hand; `scored` against what its answers say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics as sk

from autointerp.latent import Judged
from autointerp.statistics import METRICS, Answers, answers, interval, mean_of_shares, scored
from autointerp.statistics.intervals import precision_at_base_rate, precision_interval

pytestmark = pytest.mark.filterwarnings("ignore")


def judged(truth: float, answer: float | None, probability: float | None = None, kind: str | None = None) -> Judged:
    return Judged(kind or ("active" if truth else "random"), None, float(truth), answer, probability)


def judge(n_yes: int, hits: int, n_no: int, alarms: int, unparsed: int = 0, kind: str = "random") -> list[Judged]:
    yes = [judged(1, float(i < hits)) for i in range(n_yes)]
    no = [judged(0, float(i < alarms), kind=kind) for i in range(n_no)]
    return [*yes, *no, *[judged(1, None)] * unparsed]


ORACLES = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "f1": sk.f1_score,
    "kappa": sk.cohen_kappa_score,
    "precision": sk.precision_score,
    "recall": sk.recall_score,
}
BINARY = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=30)


@pytest.mark.parametrize("name", ORACLES)
@given(pairs=BINARY)
def test_metrics_of_yes_and_no_are_those_of_scikit_learn(name: str, pairs: list[tuple[int, int]]):
    truth, answer = np.array(pairs, float).T
    found = METRICS[name](Answers(truth, answer))
    if found is not None:
        assert found == pytest.approx(ORACLES[name](truth, answer))
    elif name in ("precision", "recall", "f1"):
        assert not (answer.sum() and truth.sum())
    else:
        assert len(set(truth)) == 1


RANKED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=30)


@given(pairs=RANKED)
def test_auroc_and_auprc_are_those_of_scikit_learn_with_ties(pairs: list[tuple[int, int]]):
    truth, answer = np.array(pairs, float).T
    found = [METRICS[name](Answers(truth, answer)) for name in ("auroc", "auprc")]
    if len(set(truth)) == 1:
        assert found == [None, None]
    else:
        oracles = [oracle(truth, answer) for oracle in (sk.roc_auc_score, sk.average_precision_score)]
        assert found == pytest.approx(oracles)


def test_brier_and_calibration_error_by_hand():
    given_ = Answers(np.array([1.0, 1, 0, 0]), np.array([1.0, 1, 0, 0]), np.array([0.85, 0.85, 0.15, 0.25]))
    assert METRICS["brier"](given_) == pytest.approx((2 * 0.15**2 + 0.15**2 + 0.25**2) / 4)
    assert METRICS["ece"](given_) == pytest.approx((2 * 0.15 + 0.15 + 0.25) / 4)


def test_metrics_that_need_probabilities_are_absent_without_them():
    assert not {"brier", "ece"} & set(scored(judge(5, 4, 5, 1), value="accuracy", chance=0.5).metrics)


def test_a_constant_answer_has_no_correlation():
    assert METRICS["correlation"](Answers(np.array([0.1, 0.2, 0.3]), np.full(3, 0.1))) is None


def test_one_answer_without_a_probability_leaves_the_ranking_of_the_others():
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 40).astype(float)
    probability = np.clip(0.5 + 0.2 * (truth - 0.5) + random.normal(0, 0.15, 40), 0.01, 0.99)
    all_but_one = [judged(t, float(p > 0.5), p) for t, p in zip(truth, probability, strict=True)]
    for value, oracle in (("auroc", sk.roc_auc_score), ("auprc", sk.average_precision_score)):
        found = scored([*all_but_one, judged(1, 1.0)], value=value, chance=0.5)
        assert found.value == pytest.approx(oracle(truth, probability))
        assert found.interval == scored(all_but_one, value=value, chance=0.5).interval
        assert (found.n_judged, found.n_unparsed) == (41, 0)
        unread = scored([*all_but_one, judged(1, 1.0), judged(0, None)], value=value, chance=0.5)
        assert unread.value == found.value
        assert unread.bounds is not None
        assert unread.bounds[0] < oracle(truth, probability)
        assert unread.bounds[1] == pytest.approx(oracle([*truth, 0], [*probability, 0]))
    found = scored([*all_but_one, judged(1, 1.0)], value="balanced_accuracy", chance=0.5)
    assert found.metrics["brier"] == pytest.approx(np.mean((truth - probability) ** 2))


def test_probabilities_of_one_side_alone_rank_nothing():
    found = scored([judged(1, 1.0, 0.9), judged(1, 0.0, 0.2), judged(0, 0.0)], value="auroc", chance=0.5)
    assert (found.value, found.interval, found.n_judged) == (None, None, 3)


def test_many_resamples_at_once_give_what_one_at_a_time_gives():
    random = np.random.default_rng(0)
    truth, answer = random.integers(0, 2, (8, 20)).astype(float), random.integers(0, 2, (8, 20)).astype(float)
    probability = random.random((8, 20))
    for name, metric in METRICS.items():
        rows = [metric.of(Answers(*row)) for row in zip(truth, answer, probability, strict=True)]
        assert metric.of(Answers(truth, answer, probability)) == pytest.approx(np.array(rows)), name


def test_a_judge_of_known_rates_gets_its_balanced_accuracy_and_precision():
    found = scored(judge(100, 70, 100, 20), value="balanced_accuracy", chance=0.5, base_rate=0.01)
    assert found.value == pytest.approx(0.75)
    assert found.interval is not None
    assert found.interval[0] < 0.75 < found.interval[1]
    assert found.metrics["precision_at_base_rate"] == pytest.approx(0.7 * 0.01 / (0.7 * 0.01 + 0.2 * 0.99))
    low, high = (found.metrics[f"precision_at_base_rate_{end}"] for end in ("low", "high"))
    assert low is not None
    assert high is not None
    assert low < 0.0341 < high


def test_precision_at_the_base_rate_leaves_hard_negatives_out():
    hard = judge(0, 0, 50, 50, kind="neighbour")
    both = scored([*judge(50, 40, 50, 5), *hard], value="balanced_accuracy", chance=0.5, base_rate=0.1)
    easy = scored(judge(50, 40, 50, 5), value="balanced_accuracy", chance=0.5, base_rate=0.1)
    assert both.metrics["precision_at_base_rate"] == easy.metrics["precision_at_base_rate"]
    only_hard = scored([*judge(50, 40, 0, 0), *hard], value="balanced_accuracy", chance=0.5, base_rate=0.1)
    assert "precision_at_base_rate" not in only_hard.metrics


def test_unparsed_answers_are_counted_and_bound_the_value():
    found = scored(judge(8, 8, 10, 0, unparsed=2), value="balanced_accuracy", chance=0.5)
    assert (found.value, found.n_judged, found.n_unparsed) == (1.0, 18, 2)
    assert found.bounds == pytest.approx((0.9, 1.0))
    assert scored(judge(8, 8, 10, 0), value="balanced_accuracy", chance=0.5).bounds is None


@pytest.mark.parametrize("value", ["auroc", "auprc", "correlation", "accuracy", "balanced_accuracy", "spearman"])
def test_bounds_hold_the_value_whatever_the_unread_answers_were(value: str):
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 30).astype(float)
    said = truth if value == "accuracy" else truth + random.normal(0, 1, 30)
    if value in ("accuracy", "balanced_accuracy"):
        said = np.where(random.random(30) < 0.3, 1 - truth, truth)
    whole = METRICS[value](Answers(truth, said))
    examples = [judged(t, None if i < 5 else a) for i, (t, a) in enumerate(zip(truth, said, strict=True))]
    found = scored(examples, value=value, chance=0.5)
    assert whole is not None
    assert found.bounds is not None
    assert found.bounds[0] <= whole <= found.bounds[1]


ANY_ANSWER = {
    "auroc": st.tuples(st.integers(0, 1), st.none() | st.floats(0, 1)),
    "auprc": st.tuples(st.integers(0, 1), st.none() | st.floats(0, 1)),
    "balanced_accuracy": st.tuples(st.integers(0, 1), st.none() | st.integers(0, 1)),
    "f1": st.tuples(st.integers(0, 1), st.none() | st.integers(0, 1)),
    "accuracy": st.tuples(st.integers(1, 5), st.none() | st.integers(1, 5)),
    "correlation": st.tuples(st.floats(0, 40, width=16), st.none() | st.integers(0, 9)),
    "spearman": st.tuples(st.floats(0, 40, width=16), st.none() | st.integers(0, 9)),
}


@pytest.mark.parametrize("value", ANY_ANSWER)
@given(data=st.data())
def test_bounds_hold_the_value(value: str, data: st.DataObject):
    pairs = data.draw(st.lists(ANY_ANSWER[value], min_size=2, max_size=30))
    found = scored([judged(t, None if a is None else float(a)) for t, a in pairs], value=value, chance=0.5)
    if found.bounds is not None and found.value is not None:
        assert found.bounds[0] <= found.value <= found.bounds[1]


def test_unread_activations_are_filled_in_as_the_judge_says_activations():
    random = np.random.default_rng(0)
    truth = random.gamma(1, 8, 200)
    said = np.round(9 * truth / truth.max())
    told = [judged(t, None if i % 5 == 0 else a) for i, (t, a) in enumerate(zip(truth, said, strict=True))]
    found = scored(told, value="correlation", chance=0.0)
    assert found.value is not None
    assert found.bounds is not None
    assert found.value - 0.01 < found.bounds[1] < 1
    assert found.bounds[0] < found.value - 0.2


def test_a_wrong_choice_among_several_is_wrong_even_in_the_middle():
    examples = [judged(float(i), None) for i in range(5)]
    found = scored(examples, value="accuracy", chance=0.2)
    assert (found.value, found.bounds) == (None, (0.0, 1.0))


def test_nothing_read_gives_no_value_and_the_widest_bounds():
    found = scored([judged(1, None), judged(0, None)], value="balanced_accuracy", chance=0.5)
    assert (found.value, found.interval, found.n_judged, found.n_unparsed) == (None, None, 0, 2)
    assert found.bounds == (0.0, 1.0)
    assert scored([], value="auroc", chance=0.5).bounds is None


def test_a_metric_of_no_such_name_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="no metric 'acuracy': choose one of accuracy, auprc"):
        scored([], value="acuracy", chance=0.5)


@pytest.mark.parametrize("n", [10, 40])
@pytest.mark.parametrize("truth", [0.5, 0.76, 0.95])
def test_the_interval_of_auroc_covers_the_truth_as_often_as_it_says(n: int, truth: float):
    random, n_covered = np.random.default_rng(0), 0
    yes, no = random.normal(norm.ppf(truth) * 2**0.5, 1, (400, n)), random.normal(0, 1, (400, n))
    for said in np.concatenate([yes, no], axis=1):
        found = interval("auroc", Answers(np.repeat([1.0, 0.0], n), said))
        assert found is not None
        n_covered += found[0] <= truth <= found[1]
    assert 0.92 <= n_covered / 400 <= 0.985


@given(pairs=RANKED)
def test_the_interval_of_auroc_holds_its_value_and_is_never_a_point(pairs: list[tuple[int, int]]):
    given_ = Answers(*np.array(pairs, float).T)
    value = METRICS["auroc"](given_)
    if value is not None:
        low, high = interval("auroc", given_) or (0.0, 0.0)
        assert 0 <= low <= value <= high <= 1
        assert low < high


def test_the_bootstrap_of_f1_covers_the_truth_as_often_as_it_says():
    truth = 2 * 0.7 / (2 * 0.7 + 0.2 + 0.3)
    random, n_covered = np.random.default_rng(0), 0
    for said in random.random((200, 100)) < np.repeat([0.7, 0.2], 50):
        found = interval("f1", Answers(np.repeat([1.0, 0.0], 50), said.astype(float)))
        assert found is not None
        n_covered += found[0] <= truth <= found[1]
    assert 0.90 <= n_covered / 200 <= 0.99


def test_the_same_answers_give_the_same_score():
    examples = [judged(float(i % 2), float(i % 7)) for i in range(40)]
    assert scored(examples, value="auroc", chance=0.5) == scored(examples, value="auroc", chance=0.5)
    assert answers(examples).probability is None


@pytest.mark.parametrize("n", [10, 50])
@pytest.mark.parametrize("rates", [(0.7, 0.2), (0.5, 0.5), (0.9, 0.1), (0.97, 0.03)])
def test_intervals_of_balanced_accuracy_cover_93_to_97_percent_of_2000_latents(n: int, rates: tuple[float, float]):
    said = np.random.default_rng(n).binomial(n, (rates[0], 1 - rates[1]), (2000, 2))
    low, high = mean_of_shares((said[:, 0], said[:, 1]), (n, n))
    truth = (rates[0] + 1 - rates[1]) / 2
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97


@pytest.mark.parametrize("rates", [(0.7, 0.2), (0.9, 0.05)])
def test_intervals_of_the_precision_at_the_base_rate_cover_93_to_97_percent(rates: tuple[float, float]):
    said = np.random.default_rng(0).binomial(50, rates, (1000, 2)).tolist()
    ends = np.array([precision_interval((a, 50), (b, 50), 0.01) for a, b in said])
    truth = precision_at_base_rate(*rates, 0.01)
    assert truth is not None
    assert 0.93 <= np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) <= 0.97


@given(hits=st.integers(0, 10), alarms=st.integers(0, 10), base_rate=st.sampled_from([0.0, 1e-6, 0.01, 0.5, 1.0]))
def test_the_interval_of_the_precision_holds_it_at_every_end(hits: int, alarms: int, base_rate: float):
    low, high = precision_interval((hits, 10), (alarms, 10), base_rate)
    value = precision_at_base_rate(hits / 10, alarms / 10, base_rate)
    assert 0 <= low <= high <= 1
    assert value is None or low - 1e-9 <= value <= high + 1e-9
