"""The page Compare as served, in real Chromium."""

from pathlib import Path

import pytest

from store.run import list_runs

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "compare"


@pytest.mark.slow
def test_a_person_can_lay_two_dictionaries_side_by_side(beside, browser, compared_root):
    browser.require_chromium()
    a, b, *_ = (run.id for run in list_runs(compared_root, "sae"))
    with browser.served(compared_root) as base_url:
        beside("browser_compare").drive(browser, base_url, ARTIFACTS, a, b)
