"""Probing, targeted and absorption on the tiny model: whole tables, shared passes, untouched test labels."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from scipy import sparse

from app.evaluation import pooled, probing, targeted
from app.evaluation.absorption import AbsorptionConfig, absorption_figures, measure_absorption
from app.evaluation.pooled import TextsConfig, pooled_set
from app.evaluation.probing import ProbingConfig, measure_probing
from app.evaluation.subject import NotApplicable, Subject
from app.evaluation.targeted import TargetedConfig, measure_targeted
from app.evaluation.withheld import of_groups
from sae.ablation import ABLATION_CONTROLS
from sae.absorption import Decoder, Words, fit_letters, qualified
from sae.itda import ITDA
from sae.probe_scores import Told
from sae.probing import CONTROLS
from store.figures import find
from store.run import find_run

TEXTS = {"n_train": 60, "n_test": 30, "max_tokens": 24}
PROBING = ProbingConfig(datasets=("made_up",), ks=(1, 2), n_draws=1, **TEXTS)
TARGETED = TargetedConfig(datasets=("made_up",), scr_datasets=("made_up",), sizes=(2, 5), n_draws=1, **TEXTS)


@pytest.fixture(scope="module")
def subject(tiny_root: Path) -> Subject:
    sae_run = find_run(tiny_root, "latest", "sae")
    return Subject(sae_run, find_run(tiny_root, sae_run.inputs["activations"], "activations"))


def test_probing_gives_every_arm_for_every_k(subject: Subject) -> None:
    figures = measure_probing(PROBING, subject).figures
    assert {figure.arm for figure in figures} == {"sae", *CONTROLS}
    for k in PROBING.ks:
        for arm in ("sae", "random_latents", "best_neurons", "shuffled_labels"):
            found = find(figures, "probe_balanced_accuracy", arm=arm, setting=f"made_up k={k}")
            assert found is not None
            assert found.value is not None
            assert found.low is not None


def test_refits_are_a_range_and_few_texts_are_named(subject: Subject) -> None:
    figures = measure_probing(replace(PROBING, n_draws=3), subject).figures
    found = find(figures, "probe_balanced_accuracy_refitted", setting="made_up k=1")
    assert found is not None
    assert "lowest and highest of 3 refits, no interval" in found.note
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert found.low <= found.value <= found.high
    dense = find(figures, "probe_balanced_accuracy", arm="dense", setting="made_up all")
    assert dense is not None
    assert "few texts: 30, fewer than 100" in dense.note


def test_no_live_latent_is_not_applicable(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pooled_set(subject, "made_up", PROBING)
    dead = replace(texts, train=texts.train._replace(latents=sparse.csr_array(0 * texts.train.latents)))
    monkeypatch.setattr(probing, "pooled_set", lambda *_, **__: dead)
    with pytest.raises(NotApplicable, match="no latent is active"):
        measure_probing(PROBING, subject)


@pytest.mark.parametrize(
    ("told", "groups", "note"),
    [
        (Told(0.5, 0.4, 0.6), 9, "bootstrap over 9 groups"),
        (Told(0.5), 4, "no interval: 4 groups, fewer than 5"),
        (Told(0.5), 9, "no interval: too many resamples of the groups lack a class"),
        (Told(None), 9, "not defined on these texts"),
    ],
)
def test_a_note_claims_no_interval_that_is_not_there(told: Told, groups: int, note: str) -> None:
    assert of_groups(told, 100, groups) == note


def test_targeted_gives_every_arm_for_every_size(subject: Subject) -> None:
    figures = measure_targeted(TARGETED, subject).figures
    for metric in ("tpp", "scr_ablated_accuracy"):
        arms = {figure.arm for figure in figures if figure.metric == metric}
        assert arms == {"sae", *ABLATION_CONTROLS}


def test_two_classes_give_no_tpp_and_say_why(subject: Subject, tmp_path: Path) -> None:
    lines = [f'"{"Seven ships left." if i % 2 else "A bell rang."} {i}",{i % 2}' for i in range(200)]
    (tmp_path / "two.csv").write_text("\n".join(["text,label", *lines]))
    cfg = replace(TARGETED, datasets=(str(tmp_path / "two.csv"),), scr_datasets=())
    (figure,) = measure_targeted(cfg, subject).figures
    assert figure.value is None
    assert "turned round" in figure.note


def test_both_parts_share_one_pass(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pooled_set(subject, "made_up", PROBING)
    monkeypatch.setattr(pooled, "_run", None)
    assert pooled_set(subject, "made_up", TARGETED) is first


def test_pooled_latents_are_the_mean_over_tokens(subject: Subject) -> None:
    texts = pooled_set(subject, "made_up", TextsConfig(**TEXTS))
    x_hat = texts.train.latents @ subject.sae.W_dec.detach().double().numpy()
    assert texts.train.latents.shape[0] == len(texts.train.x) == len(texts.train.labels)
    assert np.isfinite(x_hat).all()


def test_shuffled_test_labels_change_scores_alone(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[object]] = {"before": [], "scores": []}
    honest = pooled_set(subject, "made_up", PROBING)
    labels = np.random.default_rng(0).permutation(honest.test.labels)
    shuffled = replace(honest, test=honest.test._replace(labels=labels))
    predict = probing.predictions

    def watched(fitted: object, test: object) -> object:
        predicted = predict(fitted, test)  # type: ignore[arg-type]
        seen["before"].append((fitted, predicted))
        return predicted

    monkeypatch.setattr(probing, "predictions", watched)
    for texts in (honest, shuffled):
        monkeypatch.setattr(probing, "pooled_set", lambda *_, texts=texts, **__: texts)
        seen["scores"].append(measure_probing(PROBING, subject).figures)
    (fitted, predicted), (fitted_again, predicted_again) = seen["before"]  # type: ignore[misc]
    for one, two in zip(fitted.arms, fitted_again.arms, strict=True):
        for probe, other in zip(one.draws[0], two.draws[0], strict=True):
            assert np.array_equal(probe.columns, other.columns)
            assert np.array_equal(probe.weight, other.weight)
    assert all(np.array_equal(one, two) for one, two in zip(predicted, predicted_again, strict=True))
    assert seen["scores"][0] != seen["scores"][1]


def test_a_tokenizer_of_bytes_has_no_words_to_absorb(subject: Subject) -> None:
    with pytest.raises(NotApplicable, match="single tokens"):
        measure_absorption(AbsorptionConfig(), subject)


def test_targeted_predictions_do_not_need_labels() -> None:
    assert "labels" not in targeted.tpp_predictions.__code__.co_names
    assert "labels" not in probing.predictions.__code__.co_names


def test_latents_with_signs_are_not_absorbed() -> None:
    signed = SimpleNamespace(sae=ITDA.__new__(ITDA), name="itda")
    with pytest.raises(NotApplicable, match="have signs"):
        measure_absorption(AbsorptionConfig(), cast(Subject, signed))


def spelled(n: int, seed: int) -> Words:
    """Activations that tell five letters, of a dictionary that tells nothing."""
    random, letters = np.random.default_rng(seed), np.arange(n) % 5
    x = np.eye(12)[letters] + 0.05 * random.standard_normal((n, 12))
    return Words(x, sparse.csr_array((n, 30)), letters, np.arange(n))


def test_a_dictionary_that_tells_no_letter_has_no_absorption_rate() -> None:
    decoder = Decoder(np.random.default_rng(0).standard_normal((30, 12)), np.zeros(12))
    able = qualified(fit_letters(spelled(300, 1), decoder, 0), spelled(150, 2))
    figures = absorption_figures(able, spelled(150, 2), decoder, AbsorptionConfig(n_draws=2))
    rates = [one for one in figures if one.metric in {"absorption_full", "absorption_fraction"}]
    assert {one.arm for one in rates} == {"sae", "other_letter", "random_direction"}
    assert all(one.value is None and "withheld" in one.note for one in rates)
    (f1,) = (one for one in figures if one.metric == "absorption_main_f1")
    assert f1.value is not None
    assert f1.value < 0.5
    assert [one.arm for one in figures if one.metric == "absorption_main_silent"] == ["sae"]


def test_targeted_says_how_many_were_ablated(subject: Subject) -> None:
    d_sae = subject.sae.cfg.d_sae
    figures = measure_targeted(replace(TARGETED, sizes=(2, d_sae)), subject).figures
    assert all("on average" in figure.note for figure in figures if figure.metric in {"tpp", "scr_ablated_accuracy"})
    largest = [one for one in figures if one.arm == "random_latents" and one.setting.endswith(f"n={d_sae}")]
    short = [one for one in largest if one.metric == "scr_ablated_accuracy"]  # every live latent is ranked
    assert short
    assert all(one.value is None and "withheld" in one.note for one in short)
