"""Dictionaries side by side: two layers, two seeds, two models; every measure with its control, or with its reason."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from activations import harvest as harvesting
from activations import models
from activations.harvest import HarvestConfig, harvest
from activations.models import ModelFiles
from activations.reader import Activations
from activations.text import TextConfig
from activations.tiny import TinyLM
from app.evaluation.parts import ACROSS
from app.evaluation.similarity import SimilarityConfig, arrow, label, measure_similarity
from app.evaluation.subject import NotApplicable, Subject
from app.itda_training import ItdaJob, train_itda
from app.training import TrainJob, train_sae
from sae.itda import ITDA
from sae.itda_build import BuildConfig
from sae.itda_overlap import jaccard
from sae.similarity import linear_cka
from sae.topk import TopKConfig
from sae.train import TrainConfig
from store.figures import Figure, find
from store.run import Run

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
EVERY_CLASS = ("normal", "special", "role", "sink")
CFG = SimilarityConfig(n_rows=600, n_anchors=40)
ACTIVATION_METRICS = ("cka_debiased", "cka", "svcca", "relative_representations")


def harvest_tiny(root: Path, n_tokens: int = 6000, **settings) -> Run:
    text = TextConfig(corpus="stories", n_tokens=n_tokens)
    return harvest(HarvestConfig(model="tiny", hook_points=HOOKS, text=text, n_ctx=64, **settings), root)


def build(run: Run, hook_point: str) -> Subject:
    job = ItdaJob(build=BuildConfig(k=4, target_cos=0.8, n_seed=8), hook_point=hook_point, classes=EVERY_CLASS)
    return Subject(train_itda(job, run, run.root), run)


def train(run: Run, hook_point: str, seed: int) -> Subject:
    job = TrainJob(
        variant="topk",
        sae=TopKConfig(d_in=32, d_sae=48, k=4),
        train=TrainConfig(n_steps=20, seed=seed, init_rows=500),
        hook_point=hook_point,
        batch_size=128,
    )
    return Subject(train_sae(job, run, run.root), run)


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return harvest_tiny(tmp_path_factory.mktemp("similarity"))


@pytest.fixture(scope="module")
def layers(harvested: Run) -> list[Subject]:
    return [build(harvested, hook_point) for hook_point in HOOKS]


@pytest.fixture(scope="module")
def of_layers(layers: list[Subject]) -> Sequence[Figure]:
    return measure_similarity(CFG, layers).figures


@pytest.fixture(scope="module")
def of_seeds(harvested: Run) -> Sequence[Figure]:
    return measure_similarity(CFG, [train(harvested, HOOKS[1], seed) for seed in (0, 1)]).figures


def value(figures: Sequence[Figure], metric: str, **where: str) -> float:
    figure = find(figures, metric, **where)
    assert figure is not None, metric
    assert figure.value is not None, figure.note
    return figure.value


def test_it_is_in_the_table():
    assert ACROSS["similarity"].measure is measure_similarity
    assert ACROSS["similarity"].config.quick().n_rows < SimilarityConfig().n_rows


def test_every_figure_names_its_pair(of_layers: Sequence[Figure], layers: list[Subject]):
    a, b = layers
    assert label(a, b) == f"{a.name[:8]} {HOOKS[0]} ~ {b.name[:8]} {HOOKS[1]}"
    assert {f.setting for f in of_layers} == {label(a, b), arrow(a, b), arrow(b, a)}


def test_every_metric_has_a_control(of_layers: Sequence[Figure], of_seeds: Sequence[Figure]):
    for figures in (of_layers, of_seeds):
        for metric in {f.metric for f in figures}:
            assert len({f.arm for f in figures if f.metric == metric}) > 1, metric


def test_what_has_no_value_says_why(of_layers: Sequence[Figure], of_seeds: Sequence[Figure]):
    assert all(f.note for f in [*of_layers, *of_seeds] if f.value is None)


class TestTwoLayers:
    def test_overlap_is_that_of_their_tokens(self, of_layers: Sequence[Figure], layers: list[Subject]):
        a, b = (subject.sae for subject in layers)
        assert isinstance(a, ITDA)
        assert isinstance(b, ITDA)
        expected = jaccard(a, b)
        assert value(of_layers, "jaccard") == pytest.approx(expected.jaccard)
        assert value(of_layers, "jaccard", arm="chance") == pytest.approx(expected.chance)
        assert value(of_layers, "jaccard_adjusted") == pytest.approx(expected.adjusted)
        found = find(of_layers, "jaccard_adjusted")
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low <= expected.adjusted <= found.high

    def test_random_activations_overlap_by_chance(self, of_layers: Sequence[Figure]):
        for metric in ("jaccard_adjusted", "jaccard_beyond_seeds_adjusted"):
            assert abs(value(of_layers, metric, arm="random activations")) < 0.1

    def test_what_they_began_with_can_be_left_out(self, of_layers: Sequence[Figure], layers: list[Subject]):
        a, b = ({*zip(s.sae.atom_seq.tolist(), s.sae.atom_pos.tolist(), strict=True)} for s in layers)
        begun = {*list(zip(layers[0].sae.atom_seq.tolist(), layers[0].sae.atom_pos.tolist(), strict=True))[:8]}
        assert begun <= a & b, "both began with the same rows"
        expected = len((a & b) - begun) / len((a | b) - begun)
        assert value(of_layers, "jaccard_beyond_seeds") == pytest.approx(expected)
        assert value(of_layers, "jaccard_beyond_seeds") < value(of_layers, "jaccard")

    def test_layers_are_more_alike_than_shuffled_rows(self, of_layers: Sequence[Figure]):
        for metric in (*ACTIVATION_METRICS, "linear_r2"):
            assert value(of_layers, metric) > value(of_layers, metric, arm="shuffled rows") + 0.1, metric
        assert abs(value(of_layers, "cka_debiased", arm="shuffled rows")) < 0.05

    def test_cka_is_that_of_the_paired_rows(self, harvested: Run, layers: list[Subject]):
        """All held-out rows, so that their order does not matter."""
        figures = measure_similarity(SimilarityConfig(n_rows=100_000, classes=EVERY_CLASS), layers).figures
        rows = (Activations(harvested, hook).rows("heldout", EVERY_CLASS) for hook in HOOKS)
        x, y = (torch.cat(list(these.in_order())) for these in rows)
        found = find(figures, "cka")
        assert found is not None
        assert found.n == len(x) == len(y)
        assert found.value == pytest.approx(linear_cka(x, y).biased)

    def test_decoders_have_both_directions(self, of_layers: Sequence[Figure], layers: list[Subject]):
        a, b = layers
        for arm in ("sae", "random", "random, same covariance"):
            for pair in (arrow(a, b), arrow(b, a)):
                assert -1 <= value(of_layers, "best_cosine", arm=arm, setting=pair) <= 1
                assert 0 <= value(of_layers, "share_with_partner", arm=arm, setting=pair) <= 1
            assert value(of_layers, "paired_cosine", arm=arm) <= 1

    def test_two_layers_of_one_model_are_no_layer_match(self, of_layers: Sequence[Figure]):
        assert find(of_layers, "layer_match", arm="chance") is None

    def test_the_same_twice_is_the_same(self, of_layers: Sequence[Figure], layers: list[Subject]):
        assert measure_similarity(CFG, layers).figures == of_layers


class TestTwoSeeds:
    def test_decoders_are_more_alike_than_random(self, of_seeds: Sequence[Figure]):
        for metric in ("best_cosine", "paired_cosine"):
            assert value(of_seeds, metric) > value(of_seeds, metric, arm="random")

    def test_activations_of_one_hook_point_are_not_compared(self, of_seeds: Sequence[Figure]):
        for metric in (*ACTIVATION_METRICS, "linear_r2"):
            for arm in ("sae", "shuffled rows"):
                found = find(of_seeds, metric, arm=arm)
                assert found is not None
                assert found.value is None
                assert "their activations are the same" in found.note

    def test_only_itdas_have_an_overlap(self, of_seeds: Sequence[Figure]):
        found = find(of_seeds, "jaccard")
        assert found is not None
        assert found.value is None
        assert "only ITDAs" in found.note

    def test_large_dictionaries_are_not_paired(self, harvested: Run):
        subjects = [train(harvested, HOOKS[1], seed) for seed in (0, 1)]
        figures = measure_similarity(SimilarityConfig(max_paired=47), subjects).figures
        found = find(figures, "paired_cosine")
        assert found is not None
        assert found.value is None
        assert found.note == "more than 47 latents"
        assert value(figures, "best_cosine") > 0


def test_other_tokens_are_not_compared(layers: list[Subject], tmp_path: Path):
    other = build(harvest_tiny(tmp_path, n_tokens=3000), HOOKS[0])
    figures = measure_similarity(CFG, [layers[0], other]).figures
    for metric, why in (("cka", "has other tokens than"), ("jaccard", "2 different token streams")):
        found = find(figures, metric)
        assert found is not None
        assert found.value is None
        assert why in found.note


def test_too_few_rows_are_not_fitted(layers: list[Subject]):
    figures = measure_similarity(SimilarityConfig(n_rows=50), layers).figures
    for metric in ("svcca", "linear_r2"):
        found = find(figures, metric)
        assert found is not None
        assert found.value is None
        assert "50 rows of width 32, and 64 are needed" in found.note
    assert value(figures, "cka") > 0


def test_a_dictionary_is_not_compared_with_itself(layers: list[Subject]):
    with pytest.raises(NotApplicable, match="1 was named"):
        measure_similarity(CFG, [layers[0], layers[0]])


@pytest.fixture(scope="module")
def copy(harvested: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same tokens through a copy of the model with noise on its activations, and weights of another hash."""
    with pytest.MonkeyPatch.context() as patch:
        original = TinyLM.capture

        def noisy(self: TinyLM, tokens: torch.Tensor, hook_points: list) -> dict:
            generator = torch.Generator().manual_seed(0)
            captured = original(self, tokens, hook_points)
            return {n: x + 0.1 * x.std() * torch.randn(x.shape, generator=generator) for n, x in captured.items()}

        def files(reference: str, revision: str | None = None) -> ModelFiles:
            found = find_model(reference, revision)
            return ModelFiles(reference, None, "tiny-noisy", found.config_hash, found.tokenizer_hash)

        find_model = models.find_model
        patch.setattr(TinyLM, "capture", noisy)
        patch.setattr(harvesting, "find_model", files)
        return harvest_tiny(tmp_path_factory.mktemp("copy"))


def test_layers_of_a_noisy_copy_are_matched(layers: list[Subject], copy: Run):
    subjects = [*layers, *(build(copy, hook_point) for hook_point in reversed(HOOKS))]
    figures = measure_similarity(CFG, subjects).figures
    matched = {f.setting: f for f in figures if f.metric == "layer_match" and f.arm == "sae"}
    assert set(matched) >= {"jaccard", "jaccard_adjusted", *ACTIVATION_METRICS}
    for metric in ("jaccard", "cka_debiased", "svcca", "relative_representations"):
        assert matched[metric].value == 1, metric
        assert matched[metric].n == 4
    assert {f.value for f in figures if f.metric == "layer_match" and f.arm == "chance"} == {0.5}


def test_models_with_other_numbers_of_layers_are_not_matched(layers: list[Subject], copy: Run):
    figures = measure_similarity(CFG, [*layers, build(copy, HOOKS[0])]).figures
    found = find(figures, "layer_match")
    assert found is not None
    assert found.value is None
    assert "[1, 2] layers" in found.note
