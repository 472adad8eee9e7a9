"""Targeted ablations: planted classes and cues are hit, controls miss, and pooling may come before ablating."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parent))

from planted import D_SAE, N_CLASSES, cells, classes, directions

from sae.ablation import ABLATION_CONTROLS, ablated_scores
from sae.probes import Probe
from sae.probing import PooledTexts
from sae.targeted import (
    SCRScore,
    TPPScore,
    fit_scr,
    fit_tpp,
    score_scr,
    score_tpp,
    scr_predictions,
    tpp_predictions,
)

W_DEC = directions()


def tpp(train: PooledTexts, test: PooledTexts, W_dec: np.ndarray = W_DEC) -> dict[tuple[str, int], TPPScore]:
    fitted = fit_tpp(train, N_CLASSES, W_dec, (1, 2), 0, 2)
    before, after = tpp_predictions(fitted, test)
    return {(one.arm, one.n): one for one in score_tpp(before, after, test.labels, test.groups, 0)}


def negated(texts: PooledTexts) -> PooledTexts:
    return texts._replace(latents=sparse.csr_array(-texts.latents))


def scr(train: PooledTexts, test: PooledTexts, *, first: bool) -> dict[tuple[str, int], SCRScore]:
    fitted = fit_scr(train, W_DEC, (1, 2), 0, 2, first=first)
    scores = score_scr(*scr_predictions(fitted, test), test.labels, test.groups, 0, first=first)
    return {(one.arm, one.n): one for one in scores}


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, int], TPPScore]:
    return tpp(classes(150, 1), classes(90, 2))


def test_ablating_a_planted_class_hits_that_class_alone(found: dict[tuple[str, int], TPPScore]) -> None:
    ours = found["sae", 1]
    assert ours.of_possible.value == pytest.approx(1.0, abs=0.1)
    assert ours.own.value == pytest.approx(0.5, abs=0.05)
    assert ours.other.value == pytest.approx(0.0, abs=0.05)


def test_a_class_may_be_carried_by_a_latent_below_zero(found: dict[tuple[str, int], TPPScore]) -> None:
    train, test = (negated(classes(n, seed)) for n, seed in ((150, 1), (90, 2)))
    fitted = fit_tpp(train, N_CLASSES, -W_DEC, (1, 2), 0, 2, signed=True)
    before, after = tpp_predictions(fitted, test)
    ours = next(one for one in score_tpp(before, after, test.labels, test.groups, 0) if (one.arm, one.n) == ("sae", 1))
    assert ours.tpp.value == pytest.approx(found["sae", 1].tpp.value)


def test_probes_at_chance_have_nothing_to_share() -> None:
    test = classes(90, 2)
    noise = test._replace(x=np.random.default_rng(0).standard_normal(test.x.shape))
    ours = tpp(classes(150, 1), noise)["sae", 1]
    assert ours.tpp.value is not None
    assert ours.of_possible.value is None


def test_only_what_has_an_effect_is_counted_as_ablated() -> None:
    fitted = fit_tpp(classes(150, 1), N_CLASSES, W_DEC, (1, D_SAE), 0, 2)
    ours, random = fitted.rankings[:2]
    assert ours.n_ablated(1) == random.n_ablated(1) == 1
    assert 1 < ours.n_ablated(D_SAE) < D_SAE


def test_random_latents_may_run_out() -> None:
    ours, random = fit_scr(cells(240, 1), W_DEC, (1, D_SAE), 0, 2, first=True).rankings[:2]
    assert random.n_ablated(D_SAE) < ours.n_ablated(D_SAE)


def test_random_latents_hit_nothing(found: dict[tuple[str, int], TPPScore]) -> None:
    value = found["random_latents", 2].tpp.value
    assert value is not None
    assert abs(value) < 0.1


def test_no_control_is_missing(found: dict[tuple[str, int], TPPScore]) -> None:
    assert {arm for arm, _ in found} == {"sae", *ABLATION_CONTROLS}
    assert all(one.tpp.value is not None for one in found.values())


def test_two_classes_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        fit_tpp(classes(60, 1), 2, W_DEC, (1,), 0, 1)


def test_ablating_after_pooling_is_ablating_every_token() -> None:
    random = np.random.default_rng(0)
    n_tokens, texts = 7, 5
    latents = random.random((texts, n_tokens, D_SAE)) * (random.random((texts, n_tokens, D_SAE)) < 0.2)
    x = latents @ W_DEC + random.standard_normal((texts, n_tokens, W_DEC.shape[1]))
    ablated = np.array([3, 10, 41])
    without = latents.copy()
    without[:, :, ablated] = 0
    by_token = (x - latents @ W_DEC + without @ W_DEC).mean(axis=1)
    probe = Probe(np.arange(W_DEC.shape[1]), random.standard_normal(W_DEC.shape[1]), 0.3, 1.0)
    before = probe.scores(x.mean(axis=1))[:, None]
    pooled = sparse.csr_array(latents.mean(axis=1))
    np.testing.assert_allclose(ablated_scores([probe], before, W_DEC, pooled, ablated)[:, 0], probe.scores(by_token))


def test_shuffled_test_labels_change_nothing_before_scoring() -> None:
    train, test = classes(90, 1), classes(90, 2)
    other = test._replace(labels=np.random.default_rng(5).permutation(test.labels))
    runs = [tpp_predictions(fit_tpp(train, N_CLASSES, W_DEC, (1, 2), 0, 2), each) for each in (test, other)]
    assert np.array_equal(runs[0][0], runs[1][0])
    assert all(np.array_equal(runs[0][1][key], runs[1][1][key]) for key in runs[0][1])
    assert tpp(train, test)["sae", 1].tpp != tpp(train, other)["sae", 1].tpp


def test_neither_order_nor_scale_of_latents_matters(found: dict[tuple[str, int], TPPScore]) -> None:
    random = np.random.default_rng(3)
    order, factors = random.permutation(D_SAE), random.uniform(0.1, 10, D_SAE)

    def changed(texts: PooledTexts) -> PooledTexts:
        return texts._replace(latents=sparse.csr_array((texts.latents * factors)[:, order]))

    again = tpp(changed(classes(150, 1)), changed(classes(90, 2)), (W_DEC / factors[:, None])[order])
    assert again["sae", 1].tpp.value == pytest.approx(found["sae", 1].tpp.value)


def test_taking_a_planted_cue_out_brings_accuracy_back() -> None:
    ours = scr(cells(240, 1), cells(160, 2), first=True)
    assert ours["sae", 2].biased.value is not None
    assert ours["sae", 2].biased.value < 0.9
    assert ours["sae", 2].scr.value is not None
    assert ours["sae", 2].scr.value > 0.7
    control = ours["random_latents", 2].scr.value
    assert control is not None
    assert control < 0.3


def test_a_bias_that_costs_nothing_cannot_be_undone() -> None:
    ours = scr(cells(240, 1, strong=6.0), cells(160, 2, strong=6.0), first=False)
    assert ours["sae", 2].scr.value is None
