"""The dashboard as served, in real Chromium, on the small workbench with the tiny model."""

from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "dashboard-tiny"


@pytest.mark.slow
def test_a_person_can_go_through_the_dashboard(browser, fixture_index, runs_root):
    browser.require_chromium()
    with browser.served(runs_root) as base_url:
        # The tiny model has written its longest text before a person could stop it: the real one is stopped.
        browser.drive_dashboard(base_url, ARTIFACTS, fixture_index.SCORED, without={"stopping"})
