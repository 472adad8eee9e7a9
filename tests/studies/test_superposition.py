"""The superposition study finds what was planted, and its controls do not."""

import pytest

from studies import STUDIES


@pytest.fixture(scope="module")
def found() -> dict:
    return STUDIES["superposition"](seeds=(0, 1), n_steps=300)


def test_topk_recovers_planted_features_and_controls_do_not(found):
    for metric in ("mmcs", "mcc"):
        assert found[metric]["sae"]["mean"] >= 0.9
        assert found[metric]["random"]["mean"] < 0.7
        assert found[metric]["pca"]["mean"] < 0.8
    assert found["n_recovered"]["sae"]["mean"] >= 55
    assert found["n_recovered"]["random"]["mean"] == found["n_recovered"]["pca"]["mean"] == 0
    assert found["f1"]["sae"]["mean"] > 2 * found["f1"]["random"]["mean"]


def test_every_figure_has_its_controls_and_the_interval_of_its_seeds(found):
    for metric in ("mcc", "mmcs", "n_recovered", "f1", "l0"):
        assert set(found[metric]) == {"sae", "random", "pca"}
        for arm in found[metric].values():
            assert arm["low"] <= arm["mean"] <= arm["high"]
    assert set(found["per_seed"]) == {"0", "1"}
