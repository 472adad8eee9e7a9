"""The pages of latents as served, in real Chromium, on the small workbench."""

import importlib.util
from pathlib import Path

import numpy as np
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


MOST_MS = 700.0
"""From a click to a page that is fully drawn."""


@pytest.mark.slow
def test_the_next_latent_and_a_filtered_table_are_drawn_soon(browser, runs_root):
    browser.require_chromium()
    with browser.served(runs_root) as base_url:
        following = _driver().times_to_next(browser, base_url, 8, 15)
        filtered = _driver().times_to_filter(browser, base_url, [f"word{number}" for number in range(10, 22)])
    # Their median: other work on the machine is none of theirs.
    assert np.median(following) <= MOST_MS, following.round()
    assert np.median(filtered) <= MOST_MS, filtered.round()


@pytest.mark.slow
def test_a_person_can_go_through_latents(browser, fixture_index, rich_root):
    browser.require_chromium()
    with browser.served(rich_root) as base_url:
        _driver().drive(browser, base_url, ARTIFACTS, fixture_index.SCORED, "boats")
