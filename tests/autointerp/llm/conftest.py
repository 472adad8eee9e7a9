"""The fake service, within reach of this folder's tests; no key of the outside gets in."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# test folders are no packages, and importlib mode leaves them off sys.path
sys.path.insert(0, str(Path(__file__).parent))

from fake_server import FakeServer

from autointerp.llm.keys import ANY_SERVICE, SERVICE_VARIABLES


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ANY_SERVICE, *SERVICE_VARIABLES.values()):
        monkeypatch.delenv(name, raising=False)
