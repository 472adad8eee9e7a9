"""Sparse probing: planted latents are found, controls stay at chance, and nothing before scoring sees a test label."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parent))

from planted import N_CLASSES, cells, classes, directions

from sae.probe_scores import aurocs, balanced_accuracies, targets, text_weights, told
from sae.probes import MIDDLE_STRENGTH, N_FOLDS, STRENGTHS, _folds, fit_probe, prepare
from sae.probing import ALL, CONTROLS, ArmScores, Fitted, PooledTexts, fit, predictions, score

NORMS = np.linalg.norm(directions(), axis=1)


def run(train: PooledTexts, test: PooledTexts, norms: np.ndarray = NORMS, seed: int = 0) -> dict[tuple, ArmScores]:
    fitted = fit(train, N_CLASSES, norms, (1, 2), seed, n_draws=2)
    scores = score(fitted, predictions(fitted, test), test.labels, test.groups, seed)
    return {(one.arm, one.k, one.over): one for one in scores}


@pytest.fixture(scope="module")
def scores() -> dict[tuple, ArmScores]:
    return run(classes(150, 1), classes(90, 2))


def test_one_planted_latent_is_the_label(scores: dict[tuple, ArmScores]) -> None:
    found = scores["sae", 1, "draws"]
    assert found.balanced_accuracy.value == pytest.approx(1.0)
    assert found.accuracy.value == pytest.approx(1.0)
    assert found.auroc.value == pytest.approx(1.0)


@pytest.mark.parametrize(("arm", "k"), [("random_latents", 1), ("shuffled_labels", ALL), ("majority", ALL)])
def test_a_control_is_near_chance(scores: dict[tuple, ArmScores], arm: str, k: int) -> None:
    value = scores[arm, k, "draws"].balanced_accuracy.value
    assert value is not None
    assert abs(value - 0.5) < 0.12


def test_no_control_is_missing(scores: dict[tuple, ArmScores]) -> None:
    arms = {arm for arm, _, _ in scores}
    assert arms == {"sae", *CONTROLS}
    assert all(one.balanced_accuracy.value is not None for one in scores.values())


def test_refits_are_given_for_each_seed(scores: dict[tuple, ArmScores]) -> None:
    assert len(scores["sae", 1, "seeds"].by_draw) == 2


def _decided(fitted: Fitted) -> list[np.ndarray]:
    probes = [probe for arm in fitted.arms for draw in arm.draws for probe in draw]
    return [part for p in probes for part in (p.columns, p.weight, np.array([p.bias, p.strength]))]


def test_shuffled_test_labels_change_nothing_before_scoring() -> None:
    train, test = classes(60, 1), classes(90, 2)
    other = test._replace(labels=np.random.default_rng(5).permutation(test.labels))
    runs = []
    for each in (test, other):
        fitted = fit(train, N_CLASSES, NORMS, (1, 2), 0, 2)
        predicted = predictions(fitted, each)
        runs.append((_decided(fitted), predicted, score(fitted, predicted, each.labels, each.groups, 0)))
    for i in (0, 1):
        assert all(np.array_equal(a, b) for a, b in zip(runs[0][i], runs[1][i], strict=True))
    assert runs[0][2][0].balanced_accuracy != runs[1][2][0].balanced_accuracy


def test_the_order_of_latents_does_not_matter(scores: dict[tuple, ArmScores]) -> None:
    order = np.random.default_rng(3).permutation(len(NORMS))

    def permuted(texts: PooledTexts) -> PooledTexts:
        return texts._replace(latents=sparse.csr_array(texts.latents[:, order]))

    again = run(permuted(classes(150, 1)), permuted(classes(90, 2)), NORMS[order])
    for key in (("sae", 1, "draws"), ("sae", ALL, "draws")):
        assert again[key].auroc.value == pytest.approx(scores[key].auroc.value, abs=1e-6)


def test_the_scale_may_be_in_latents_or_in_decoder_rows(scores: dict[tuple, ArmScores]) -> None:
    factors = np.random.default_rng(4).uniform(0.1, 10, len(NORMS))

    def scaled(texts: PooledTexts) -> PooledTexts:
        return texts._replace(latents=sparse.csr_array(texts.latents * factors))

    again = run(scaled(classes(150, 1)), scaled(classes(90, 2)), NORMS / factors)
    for key in (("sae", 1, "draws"), ("sae", 2, "draws"), ("sae", ALL, "draws")):
        assert again[key].auroc.value == pytest.approx(scores[key].auroc.value, abs=1e-6)


def test_a_seed_decides_everything(scores: dict[tuple, ArmScores]) -> None:
    assert run(classes(150, 1), classes(90, 2)) == scores


def test_turning_many_features_into_few_is_exact() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((40, 90))
    wanted = x[:, 0] > 0
    wide = fit_probe(x, wanted, np.arange(40))
    prepared = prepare(x)
    assert prepared.back is not None
    np.testing.assert_allclose(prepared.z @ prepared.back, (x - x.mean(0)) / x.std(0), atol=1e-9)
    # the gradient of the penalised loss vanishes at its solution, over all ninety weights
    z = (x - x.mean(0)) / x.std(0)
    weight = wide.weight * x.std(0)
    bias = wide.bias + x.mean(0) @ wide.weight
    sign, share = np.where(wanted, 1, -1), np.where(wanted, wanted.mean(), 1 - wanted.mean())
    pull = sign / (2 * share) / (1 + np.exp(sign * (z @ weight + bias)))
    np.testing.assert_allclose(weight, wide.strength * pull @ z, atol=1e-3)


def test_auroc_counts_ties_half() -> None:
    wanted = np.array([[True], [True], [False], [False]])
    weights = np.ones((1, 4))
    assert aurocs(weights, np.zeros((4, 1)), wanted)[0, 0] == 0.5
    assert aurocs(weights, np.array([[1.0], [0.0], [0.0], [-1.0]]), wanted)[0, 0] == 0.875


def test_balanced_accuracy_does_not_reward_the_frequent_side() -> None:
    wanted = np.array([[True]] + [[False]] * 9)
    assert balanced_accuracies(np.ones((1, 10)), -np.ones((10, 1)), wanted)[0, 0] == 0.5


def test_whole_groups_are_resampled() -> None:
    groups = np.repeat(np.arange(6), 3)
    weights = text_weights(groups, seed=0, n_resamples=50)
    assert (weights.reshape(51, 6, 3).std(axis=2) == 0).all()
    assert (weights.sum(axis=1) == 18).all()


def test_few_groups_give_no_interval() -> None:
    weights = text_weights(np.array([0, 0, 1, 1]), seed=0)
    found = told(balanced_accuracies(weights, np.ones((4, 1)), targets(np.array([0, 1, 0, 1]), 2))[:, 0])
    assert (found.value, found.low) == (0.5, None)


def test_a_resample_that_lacks_a_class_is_left_out() -> None:
    distribution = np.linspace(0.4, 0.6, 1001)
    distribution[500:550] = np.nan
    found = told(distribution)
    assert found.low == pytest.approx(0.405, abs=0.002)
    assert found.high == pytest.approx(0.595, abs=0.002)
    distribution[500:620] = np.nan
    assert told(distribution).low is None


def crossed(n_authors: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each author on every one of five topics; what tells topic 0 lies along directions of little variance."""
    random = np.random.default_rng(seed)
    topics, authors = np.tile(np.arange(5), n_authors), np.repeat(np.arange(n_authors), 5)
    shared = random.standard_normal((len(topics), 3)) @ np.random.default_rng(9).standard_normal((3, 40))
    x = 3 * shared + 0.3 * random.standard_normal((len(topics), 40))
    x[:, :5] += np.eye(5)[topics]
    return x, topics == 0, authors


def test_a_crossed_design_chooses_its_strength() -> None:
    x, wanted, authors = crossed(120, 1)
    probe = fit_probe(x, wanted, authors)
    assert probe.strength > STRENGTHS[0]
    x, wanted, _ = crossed(120, 2)
    says = probe.scores(x)[:, None]
    assert balanced_accuracies(np.ones((1, len(x))), says, wanted[:, None])[0, 0] > 0.9


@pytest.mark.parametrize("texts", [classes(150, 1), cells(160, 1)])
def test_planted_texts_have_every_fold(texts: PooledTexts) -> None:
    for wanted in targets(texts.labels, int(texts.labels.max()) + 1).T:
        folds = _folds(wanted, texts.groups, 0)
        assert len(folds) == N_FOLDS
        for inside, outside in folds:
            assert not set(texts.groups[inside]) & set(texts.groups[outside])
            assert abs(wanted[outside].mean() - wanted.mean()) < 0.05


def test_two_groups_of_a_class_leave_two_folds_and_one_leaves_none() -> None:
    x = np.random.default_rng(0).standard_normal((60, 20))
    for n_wanted, n_folds in ((2, 2), (1, 0)):
        wanted = np.arange(60) < 10 * n_wanted
        assert len(_folds(wanted, np.arange(60) // 10, 0)) == n_folds
    assert fit_probe(x, wanted, np.arange(60) // 10).strength == MIDDLE_STRENGTH
