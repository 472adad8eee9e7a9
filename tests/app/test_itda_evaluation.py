"""What an ITDA's evaluation says: MP and OMP, the dictionary and its control, each over the same held-out rows."""

from pathlib import Path

import pytest
import torch

from activations.harvest import HarvestConfig, harvest
from activations.reader import Activations
from activations.text import TextConfig
from app.evaluation.itda import ARMS, RANDOM, ItdaConfig, measure_itda, random_control
from app.evaluation.parts import PARTS
from app.evaluation.subject import NotApplicable, Subject
from app.itda_training import ItdaJob, train_itda
from sae.itda import ITDA
from sae.itda_build import BuildConfig
from sae.metrics import StreamingFVU
from sae.pursuit import mp, omp
from store.errors import UsageError
from store.figures import Figure, find
from store.run import Run, find_run

HOOK = "blocks.1.hook_resid_post"
EVERY = ItdaConfig(n_rows=100_000, among=100_000)


@pytest.fixture(scope="module")
def harvested(tiny_root: Path) -> Run:
    return find_run(tiny_root, "latest", "activations")


@pytest.fixture(scope="module")
def built(harvested: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    job = ItdaJob(build=BuildConfig(k=4, target_cos=0.95, n_seed=8), hook_point=HOOK, batch_size=100)
    return train_itda(job, harvested, tmp_path_factory.mktemp("itda"))


@pytest.fixture(scope="module")
def subject(built: Run, harvested: Run) -> Subject:
    return Subject(built, harvested)


@pytest.fixture(scope="module")
def figures(subject: Subject) -> list[Figure]:
    return list(measure_itda(EVERY, subject).figures)


def value(figures: list[Figure], metric: str, **where: str) -> float:
    figure = find(figures, metric, **where)
    assert figure is not None
    assert figure.value is not None
    return figure.value


def test_it_is_in_the_table():
    assert PARTS["itda"].measure is measure_itda
    assert PARTS["itda"].config.quick().n_rows < ItdaConfig().n_rows


def test_every_arm_has_every_metric(figures: list[Figure]):
    for metric in ("fvu", "cosine", "l0", "target_reached", "negative_coefficients"):
        assert {f.arm for f in figures if f.metric == metric} == set(ARMS)
    assert all(f.value is not None for f in figures)
    assert all(f.n > 0 and f.token_class == "normal" for f in figures if f.n_of == "rows")


def test_matching_pursuit_and_its_control_are_those_of_the_build(figures: list[Figure], built: Run):
    """Over all held-out rows, and with the seed it was built with, they are the figures of the run."""
    assert value(figures, "fvu") == pytest.approx(built.results["heldout_fvu"], rel=1e-6)
    assert value(figures, "fvu", arm=RANDOM) == pytest.approx(built.results["heldout_fvu_random_atoms"], rel=1e-6)
    assert value(figures, "l0") == pytest.approx(built.results["heldout_l0"])


def test_omp_is_that_of_the_definition(figures: list[Figure], subject: Subject):
    itda = subject.sae
    assert isinstance(itda, ITDA)
    x = torch.cat(list(subject.activations.rows("heldout").in_order()))
    code, fvu = omp(x, itda.W_dec, itda.cfg.k), StreamingFVU()
    x_hat = code.decode(itda.W_dec)
    fvu.update(x, x_hat)
    assert value(figures, "fvu", arm="omp") == pytest.approx(fvu.value(), rel=1e-5)
    reached = (torch.cosine_similarity(x, x_hat) >= 0.95).double().mean().item()
    assert value(figures, "target_reached", arm="omp") == pytest.approx(reached)
    negative = ((code.values < 0).sum() / (code.values != 0).sum()).item()
    assert value(figures, "negative_coefficients", arm="omp") == pytest.approx(negative)


def test_omp_leaves_less_than_mp(figures: list[Figure]):
    assert value(figures, "fvu", arm="omp") < value(figures, "fvu")
    assert value(figures, "fvu", arm=f"{RANDOM}, omp") < value(figures, "fvu", arm=RANDOM)


def test_the_difference_from_random_is_that_of_the_arms(figures: list[Figure]):
    expected = value(figures, "fvu") - value(figures, "fvu", arm=RANDOM)
    found = find(figures, "fvu_minus_random")
    assert found is not None
    assert found.value == pytest.approx(expected)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= expected <= found.high


def test_intervals_hold_their_value(figures: list[Figure]):
    with_interval = [f for f in figures if f.low is not None]
    assert {"fvu", "cosine", "l0"} <= {f.metric for f in with_interval}
    assert all(f.low <= f.value <= f.high for f in with_interval)


def test_atoms_are_counted_in_both(figures: list[Figure], subject: Subject):
    for arm in ("sae", RANDOM):
        assert value(figures, "n_atoms", arm=arm) == subject.sae.cfg.d_sae
        assert 0 <= value(figures, "repeated_atoms", arm=arm) < 1
    # the build leaves them out, an even draw does not
    assert value(figures, "repeated_atoms") == 0


def test_the_control_shares_tokens_by_chance_alone(figures: list[Figure]):
    chance = value(figures, "jaccard", arm="chance")
    assert value(figures, "jaccard", arm=RANDOM) == pytest.approx(chance, abs=0.1)
    assert abs(value(figures, "jaccard_adjusted", arm=RANDOM)) < 0.1


def test_the_control_is_that_of_its_seed(subject: Subject):
    one, two, other = (random_control(subject, seed) for seed in (0, 0, 1))
    assert torch.equal(one.W_dec, two.W_dec)
    assert not torch.equal(one.W_dec, other.W_dec)
    assert len(one.W_dec) == subject.sae.cfg.d_sae


def test_fewer_rows_are_spread_over_the_text(subject: Subject):
    few = measure_itda(ItdaConfig(n_rows=150, among=100_000), subject).figures
    found = find(few, "fvu")
    assert found is not None
    assert found.n == 150
    assert found.low is not None, "rows of five documents and more"


def test_classes_are_told_apart(tmp_path: Path):
    """A few sinks would outweigh all other rows."""
    text = TextConfig(corpus="stories", n_tokens=4000)
    settings = HarvestConfig(model="tiny", hook_points=(HOOK,), text=text, n_ctx=64, sink_norm_ratio=1.1)
    harvested = harvest(settings, tmp_path)
    job = ItdaJob(build=BuildConfig(k=4, n_seed=8), hook_point=HOOK, classes=("normal", "special", "role", "sink"))
    figures = measure_itda(EVERY, Subject(train_itda(job, harvested, tmp_path), harvested)).figures
    counts = {f.token_class: f.n for f in figures if f.metric == "fvu" and f.arm == "sae"}
    assert set(counts) == {"normal", "sink", "normal+sink"}
    assert counts["normal"] + counts["sink"] == counts["normal+sink"]


def test_a_trained_dictionary_is_not_for_it(tiny_root: Path, harvested: Run):
    sae = find_run(tiny_root, "latest", "sae")
    with pytest.raises(NotApplicable, match="topk"):
        measure_itda(ItdaConfig(), Subject(sae, harvested))


def test_without_held_out_rows_it_says_so(harvested: Run, subject: Subject, monkeypatch: pytest.MonkeyPatch):
    rows = Activations.rows
    monkeypatch.setattr(Activations, "rows", lambda self, split, *rest: rows(self, split, *rest, documents=[]))
    with pytest.raises(UsageError, match="no held-out row of class normal"):
        measure_itda(ItdaConfig(), subject)


def test_pursuits_are_the_ones_of_the_arms():
    assert [pursue for _, pursue in ARMS.values()] == [mp, omp, mp, omp]


@pytest.mark.slow
def test_on_smollm2_the_choice_is_within_two_hundredths_of_a_random_one(tmp_path: Path):
    """Choosing buys labels that everyone agrees on, and little reconstruction: neither is to be lost."""
    hook_point = "blocks.11.hook_resid_post"
    harvested = harvest(HarvestConfig(hook_points=(hook_point,), text=TextConfig(n_tokens=14_000)), tmp_path)
    job = ItdaJob(build=BuildConfig(k=40, target_cos=0.9), hook_point=hook_point, n_tokens=10_000)
    found = train_itda(job, harvested, tmp_path).results
    assert abs(found["heldout_fvu"] - found["heldout_fvu_random_atoms"]) < 0.02
    assert 0.1 < found["heldout_fvu"] < 0.3
