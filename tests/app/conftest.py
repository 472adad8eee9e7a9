"""The small workbench, built once for all tests of the app that only read it."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from streamlit.testing.v1 import AppTest

import app.web
from app.generator import Worker
from app.web import state
from app.web.navigation import file_of
from app.workbench import Workbench

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
def beside() -> Callable[[str], ModuleType]:
    """Loads a module of this folder that is no test, by its name."""
    return _load


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


@pytest.fixture
def rich_root(tmp_path: Path, fixture_index: ModuleType) -> Path:
    """Runs of the test's own, where notes may be written, with neighbours, a plane, judgements and a matching too."""
    index = fixture_index.build_workbench(tmp_path)
    _load("rich_index").enrich(tmp_path, index, fixture_index.D_SAE, fixture_index.SCORED)
    return tmp_path


@pytest.fixture(scope="module")
def one_thread():
    """Workers compute as this process does: sums of another number of threads differ in the last bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def bench(runs_root: Path) -> Workbench:
    """The small workbench in this process."""
    return Workbench.open(runs_root)


@pytest.fixture(scope="module")
def worker(one_thread: None, runs_root: Path) -> Iterator[Worker]:
    """And in a process of its own."""
    worker = Worker(runs_root, "latest")
    yield worker
    worker.close()
