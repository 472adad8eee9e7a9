"""The steering lab as served, in real Chromium, on the small workbench with the tiny model."""

import shutil
from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "steering-tiny"


@pytest.mark.slow
def test_a_person_can_go_through_the_steering_lab(beside, browser, fixture_index, runs_root, tmp_path):
    browser.require_chromium()
    driver = beside("browser_steering")
    root = shutil.copytree(runs_root, tmp_path / "runs")
    with browser.served(root) as base_url:
        # The tiny model has written its longest text before a person could stop it.
        driver.drive(browser, base_url, ARTIFACTS, (fixture_index.SCORED, 12), can_stop=False)
