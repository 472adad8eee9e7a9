"""Puts this folder's helpers within reach; two dictionaries of one harvest and their matching."""

import shutil
import sys
from pathlib import Path

import pytest

# test folders are no packages, and importlib mode leaves them off sys.path
sys.path.insert(0, str(Path(__file__).parent))

from given_index import tokens_of

from app.cli import main
from store.matching import Matching
from store.run import find_run
from store.token_map import TokenMap


@pytest.fixture(scope="session")
def matched_root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny runs, a wider dictionary of another seed, its index, and the matching of both."""
    root = tmp_path_factory.mktemp("matching") / "runs"
    shutil.copytree(tiny_root, root)
    for command in (
        "train topk --d-sae 96 --k 4 --n-steps 40 --batch-size 256 --seed 1",
        "index",
        "match",
    ):
        assert main([*command.split(), "--root", str(root)]) == 0
    return root


@pytest.fixture(scope="session")
def matching(matched_root: Path) -> Matching:
    return Matching(find_run(matched_root, "latest", "matching").folder)


@pytest.fixture(scope="session")
def tokens(matched_root: Path, tmp_path_factory: pytest.TempPathFactory) -> TokenMap:
    return tokens_of(find_run(matched_root, "latest", "activations"), tmp_path_factory.mktemp("tokens"))


@pytest.fixture
def work(matched_root: Path, tmp_path: Path) -> Path:
    """A folder with the harvest and nothing else."""
    harvest = find_run(matched_root, "latest", "activations")
    shutil.copytree(harvest.folder, tmp_path / "runs" / "activations" / harvest.id)
    return tmp_path / "runs"
