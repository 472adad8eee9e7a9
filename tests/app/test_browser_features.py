"""The pages of latents as served, in real Chromium, on the small workbench."""

import importlib.util
from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "features"


def _driver():
    spec = importlib.util.spec_from_file_location("monosem_tests_browser_features", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PATH = Path(__file__).with_name("browser_features.py")


@pytest.mark.slow
def test_a_person_can_go_through_latents(browser, fixture_index, rich_root):
    browser.require_chromium()
    with browser.served(rich_root) as base_url:
        _driver().drive(browser, base_url, ARTIFACTS, fixture_index.SCORED, "boats")
