"""The page Compare as served, in real Chromium."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from store.run import list_runs

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "compare"


def _driver() -> ModuleType:
    path = Path(__file__).with_name("browser_compare.py")
    spec = importlib.util.spec_from_file_location("monosem_tests_browser_compare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_person_can_lay_two_dictionaries_side_by_side(browser, compared_root):
    browser.require_chromium()
    a, b, *_ = (run.id for run in list_runs(compared_root, "sae"))
    with browser.served(compared_root) as base_url:
        _driver().drive(browser, base_url, ARTIFACTS, a, b)
