"""A root with two harvests made by hand, and its catalogue."""

import sys
from pathlib import Path

import pytest

# Test folders are no packages, and importlib mode leaves them off the path.
sys.path.insert(0, str(Path(__file__).parent))

from catalogued import harvest

from store.catalog import Catalog
from store.run import start_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two harvests and a run of another kind."""
    root = tmp_path_factory.mktemp("runs")
    harvest(root, "a")
    harvest(root, "b", "bfloat16")
    with start_run(root, "sae", {"k": 1}, {"activations": "a"}) as run:
        run.finish({"fvu": 0.25})
    return root


@pytest.fixture
def opened(root: Path) -> Catalog:
    return Catalog(root)
