"""The small workbench, built once for all tests of the app that only read it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    # By path: test folders are no packages, and importlib mode leaves them off sys.path.
    spec = importlib.util.spec_from_file_location(f"monosem_tests_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fixture_index() -> ModuleType:
    """The builder and the numbers of its latents."""
    return _load("fixture_index")


@pytest.fixture(scope="session")
def browser() -> ModuleType:
    """The browser driver."""
    return _load("browser")


@pytest.fixture(scope="session")
def compared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dictionaries to lay side by side; tests that change something copy it."""
    root = tmp_path_factory.mktemp("compared") / "runs"
    _load("trained_runs").build_compared(root)
    return root


@pytest.fixture(scope="session")
def trained_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings, the newest of which was killed; tests that change something copy it."""
    root = tmp_path_factory.mktemp("trained") / "runs"
    _load("trained_runs").build_trained(root)
    return root


@pytest.fixture(scope="session")
def runs_root(tmp_path_factory: pytest.TempPathFactory, fixture_index: ModuleType) -> Path:
    """Runs with an index, its explanations and scores."""
    root = tmp_path_factory.mktemp("runs")
    fixture_index.build_workbench(root)
    return root
