"""The steering lab as served, in real Chromium, on the small workbench with the tiny model."""

import importlib.util
import shutil
from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "steering-tiny"


@pytest.mark.slow
def test_a_person_can_go_through_the_steering_lab(browser, fixture_index, runs_root, tmp_path):
    browser.require_chromium()
    spec = importlib.util.spec_from_file_location("browser_steering", Path(__file__).with_name("browser_steering.py"))
    assert spec is not None
    assert spec.loader is not None
    driver = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(driver)
    root = shutil.copytree(runs_root, tmp_path / "runs")
    with browser.served(root) as base_url:
        # The tiny model has written its longest text before a person could stop it.
        driver.drive(browser, base_url, ARTIFACTS, (fixture_index.SCORED, 12), can_stop=False)
