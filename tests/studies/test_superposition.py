"""The superposition study finds what was planted, and its controls do not."""

from studies import STUDIES


def test_topk_recovers_planted_features_and_controls_do_not():
    found = STUDIES["superposition"](seeds=(0,), n_steps=400)["mmcs"]
    assert found["topk"] >= 0.9
    assert found["random"] < 0.7
    assert found["pca"] < 0.8
