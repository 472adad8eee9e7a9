"""Random directions: as dense as the latents they stand against, drawn from like any index, whole after a kill."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from activations.reader import Activations
from autointerp import random_directions as module
from autointerp.index.ranges import Ranges
from autointerp.index.spill import Spill
from autointerp.random_directions import DIRECTIONS, DirectionsConfig, Largest, random_directions
from autointerp.sample import SampleConfig, Sampler
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.run import Run, find_run

CFG = SampleConfig(n_explain=10, n_score=10, min_contexts=3, min_docs=2, max_density=0.5, half_window=4)


@pytest.fixture(scope="module")
def work(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("directions") / "runs"
    shutil.copytree(tiny_root, root)
    return root


@pytest.fixture(scope="module")
def index_run(work: Path) -> Run:
    return find_run(work, "latest", "index")


@pytest.fixture(scope="module")
def latents(index_run: Run) -> tuple[int, ...]:
    return tuple(Sampler(FeatureIndex(index_run.folder), CFG).choose(6))


@pytest.fixture(scope="module")
def run(work: Path, index_run: Run, latents: tuple[int, ...]) -> Run:
    return random_directions(DirectionsConfig(latents=latents), index_run, work)


def test_each_fires_as_often_as_its_latent_but_for_equal_projections(
    run: Run, index_run: Run, latents: tuple[int, ...]
):
    found, index = FeatureIndex(run.folder), FeatureIndex(index_run.folder)
    ours = found.sql("SELECT n_fired, density FROM latents ORDER BY latent")
    query = "SELECT latent, n_fired, density FROM latents"
    theirs = index.sql(query).set_index("latent").loc[list(latents)]
    assert (ours["n_fired"].to_numpy() <= theirs["n_fired"].to_numpy()).all()
    assert ours["density"].tolist() == pytest.approx(theirs["density"].tolist(), rel=0.06)


def test_events_are_the_largest_projections_less_the_threshold(run: Run, index_run: Run):
    index, saved = FeatureIndex(run.folder), load_file(run.folder / DIRECTIONS)
    assert np.linalg.norm(saved["directions"], axis=1) == pytest.approx(1, abs=1e-5)
    activations = Activations(find_run(run.root, run.inputs["activations"], "activations"))
    projected = np.full((len(index.tokens), len(saved["thresholds"])), -np.inf)
    for block in activations.blocks:
        rows = block.open()
        keep = np.flatnonzero((rows.columns["pos"] > 0) & (rows.columns["token_class"] == 0))
        places = index.tokens.places(rows.columns["seq"][keep], rows.columns["pos"][keep])
        projected[places] = rows.tensor(keep, activations.dtype).float().numpy() @ saved["directions"].T
    over = np.maximum(projected - saved["thresholds"], 0)
    for i in range(over.shape[1]):
        fired = index.events(i)
        shown = np.zeros(len(index.tokens))
        shown[index.tokens.places(fired.seq, fired.pos)] = fired.value
        assert np.allclose(shown, over[:, i], atol=1e-4)


def test_a_sampler_draws_from_them_like_from_any_index(run: Run, latents: tuple[int, ...]):
    sampler = Sampler(FeatureIndex(run.folder), CFG)
    assert sampler.status().width == len(latents)
    for i in sampler.choose(6):
        evidence, trial = sampler.evidence(i), sampler.trial(i)
        assert evidence.windows
        assert trial.active
        assert not any(any(w.values) for w in trial.silent)
        assert sum(trial.kinds.values()) == 2 * trial.kinds["active"]
        assert {w.doc_id for w in evidence.shown}.isdisjoint(trial.doc_ids)


def test_asking_again_makes_nothing_and_another_seed_other_directions(
    run: Run, work: Path, index_run: Run, latents: tuple[int, ...]
):
    assert random_directions(DirectionsConfig(latents=latents), index_run, work).reused
    other = random_directions(DirectionsConfig(latents=latents[:2], seed=1), index_run, work)
    mine, theirs = (load_file(each.folder / DIRECTIONS)["directions"] for each in (run, other))
    assert not np.allclose(mine[:2], theirs)


def after(work: Callable[..., Any]) -> Callable[..., Any]:
    """Does it once, and is killed."""

    def killed(*args: Any) -> None:
        work(*args)
        raise KeyboardInterrupt

    return killed


def test_one_that_was_killed_goes_on_and_ends_the_same(
    run: Run, tmp_path: Path, work: Path, index_run: Run, latents: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(work, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "directions" / run.id)
    for owner, name in ((module, "_keep"), (Spill, "write"), (Ranges, "write")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, after(getattr(owner, name)))
            with pytest.raises(KeyboardInterrupt):
                random_directions(DirectionsConfig(latents=latents), index_run, tmp_path / "runs")
    again = random_directions(DirectionsConfig(latents=latents), index_run, tmp_path / "runs")
    assert again.id == run.id
    assert {k: v["sha256"] for k, v in again.manifest["files"].items() if "text" not in k} == {
        k: v["sha256"] for k, v in run.manifest["files"].items() if "text" not in k
    }


@pytest.mark.parametrize("spread", ["isotropic", "data"])
def test_directions_have_the_covariance_that_was_asked_for(
    work: Path, index_run: Run, latents: tuple[int, ...], tmp_path: Path, spread: str
):
    cfg = DirectionsConfig(latents=(latents[0],) * 400, spread=spread)
    harvest = find_run(work, index_run.inputs["activations"], "activations")
    made = module._Directions(
        index_run.folder, cfg, FeatureIndex(index_run.folder), Activations(harvest), lambda x, *_: x
    )
    axes = torch.linalg.eigh(torch.cov(made._sample().t())).eigenvectors
    along = (made.directions @ axes).square().mean(dim=0)
    share = float(along[-4:].sum())
    assert (share > 0.4) if spread == "data" else share == pytest.approx(4 / len(along), abs=0.04)


@pytest.mark.parametrize("n", [1, 7, 300])
def test_the_largest_are_kept_whatever_the_order(n: int):
    random = np.random.default_rng(n)
    values = random.normal(size=(20_000, 2)).astype(np.float32)
    largest = Largest(np.array([n, 2 * n]))
    for start in range(0, len(values), 1000):
        largest.see(values[start : start + 1000], np.arange(start, start + 1000))
    largest.trim()
    for i, k in enumerate((n, 2 * n)):
        expected = np.argsort(-values[:, i], kind="stable")[:k]
        assert largest.places[i].tolist() == expected.tolist()
        assert largest.values[i].tolist() == values[expected, i].tolist()


@pytest.mark.parametrize(
    ("latents", "said"),
    [((), "0 latents fire 0 times"), ((64,), "there is no latent 64: choose 0 to 63")],
)
def test_what_cannot_be_matched_is_one_clear_line(work: Path, index_run: Run, latents: tuple[int, ...], said: str):
    with pytest.raises(UsageError, match=said):
        random_directions(DirectionsConfig(latents=latents), index_run, work)
