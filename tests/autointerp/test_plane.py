"""The plane of an index: what it promises with UMAP and without."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from app.cli import main
from autointerp.plane import PlaneConfig, lay_out, umap_plane
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index import publish, write_part
from store.run import find_run, list_runs, start_run


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_root, tmp_path / "runs")
    return tmp_path / "runs"


def made_plane(root: Path, x: float, seed: int) -> None:
    """A finished run of kind `plane` with two latents, and its index published anew."""
    index = find_run(root, "latest", "index")
    with start_run(root, "plane", PlaneConfig(seed=seed), {"index": index.id}) as run:
        write_part(run.folder, "plane", {"latent": [3, 5], "x": [x, x], "y": [0.0, 1.0]})
        run.finish({"n_latents": 2})
    publish(index)


def test_without_umap_one_line_says_how_to_install_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    real = importlib.import_module

    def without(name: str):
        if name == "umap":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr("autointerp.plane.importlib.import_module", without)
    assert main(["plane", "--root", str(root)]) == 2
    assert "pip install 'monosem[umap]'" in " ".join(capsys.readouterr().err.split())
    assert not list_runs(root, "plane")


def test_a_plane_is_added_to_a_finished_index_and_a_newer_one_replaces_it(root: Path):
    index = FeatureIndex(find_run(root, "latest", "index").folder)
    assert index.sql("FROM plane").empty
    made_plane(root, 1.0, seed=0)
    assert index.sql("SELECT x FROM plane ORDER BY latent")["x"].tolist() == [1.0, 1.0]
    made_plane(root, 2.0, seed=1)
    assert index.sql("SELECT x FROM plane ORDER BY latent")["x"].tolist() == [2.0, 2.0]
    assert index.sql("SELECT count(*) AS n FROM runs WHERE kind = 'plane'")["n"][0] == 1


def test_an_index_without_a_dictionary_is_refused(root: Path):
    index = find_run(root, "latest", "index")
    del index.manifest["inputs"]["sae"]
    with pytest.raises(UsageError, match="without a dictionary"):
        lay_out(PlaneConfig(), index, root)


def test_too_few_latents_are_refused():
    with pytest.raises(UsageError, match="3 latents fire, a plane needs 8"):
        umap_plane(np.eye(3), PlaneConfig())


@pytest.mark.parametrize("settings", [{"n_neighbours": 1}, {"min_dist": -0.1}, {"min_dist": 2.0}])
def test_settings_out_of_range_are_refused(settings: dict):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PlaneConfig(**settings)


class TestUMAP:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("umap")

    def test_the_same_seed_gives_the_same_plane_and_groups_stay_together(self):
        centres = torch.nn.functional.normalize(torch.randn(3, 32), dim=1)
        rows = (centres.repeat_interleave(20, dim=0) + 0.05 * torch.randn(60, 32)).numpy()
        one, two = (umap_plane(rows, PlaneConfig(seed=4)) for _ in range(2))
        assert np.array_equal(one, two)
        groups = one.reshape(3, 20, 2)
        middles = groups.mean(1)
        spread = np.linalg.norm(groups - middles[:, None], axis=2).max()
        apart = np.linalg.norm(middles[:, None] - middles[None], axis=2)[~np.eye(3, dtype=bool)].min()
        assert spread < apart

    def test_every_latent_that_fires_gets_a_place_and_the_command_is_a_no_op_again(
        self, root: Path, capsys: pytest.CaptureFixture[str]
    ):
        index = FeatureIndex(find_run(root, "latest", "index").folder)
        assert main(["plane", "--seed", "2", "--root", str(root)]) == 0
        rows = index.sql("SELECT latent, x, y FROM plane ORDER BY latent")
        alive = index.sql("SELECT latent FROM latents WHERE NOT dead ORDER BY latent")
        assert rows["latent"].tolist() == alive["latent"].tolist()
        assert np.isfinite(rows[["x", "y"]].to_numpy()).all()
        assert find_run(root, "latest", "plane").config["metric"] == "cosine"
        capsys.readouterr()
        assert main(["plane", "--seed", "2", "--root", str(root)]) == 0
        assert "was there already" in capsys.readouterr().out
