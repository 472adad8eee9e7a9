"""The small workbench, built once for all tests of the app that only read it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from streamlit.testing.v1 import AppTest

import app.web
from app.web import state
from app.web.navigation import file_of

WEB = Path(app.web.__file__).parent
TIMEOUT = 60


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
def runs_root(tmp_path_factory: pytest.TempPathFactory, fixture_index: ModuleType) -> Path:
    """Runs with an index, its explanations and scores."""
    root = tmp_path_factory.mktemp("runs")
    fixture_index.build_workbench(root)
    return root


@pytest.fixture
def dashboard(runs_root, monkeypatch):
    """Opens a page of the dashboard, on the shared runs unless another root is given."""

    def open_page(name: str, root: Path = runs_root, **query: str) -> AppTest:
        monkeypatch.setenv("MONOSEM_ROOT", str(root))
        monkeypatch.setenv("MONOSEM_INDEX", "latest")
        at = AppTest.from_file(str(WEB / "main.py"), default_timeout=TIMEOUT)
        if name != "home":
            at.switch_page(str(file_of(name)))
        for key, value in query.items():
            at.query_params[key] = value
        return at.run()

    yield open_page
    state._open.clear()
