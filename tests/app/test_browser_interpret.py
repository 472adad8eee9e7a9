"""Home and Interpret as served, in real Chromium, on the tiny demo."""

import shutil
from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "interpret"


@pytest.fixture(scope="module")
def driver(beside):
    """The steps."""
    return beside("browser_interpret")


@pytest.mark.slow
def test_a_person_starts_a_job_reads_it_and_rates_it(browser, driver, tiny_root, tmp_path):
    browser.require_chromium()
    shutil.copytree(tiny_root, tmp_path / "runs")
    with browser.served(tmp_path / "runs") as base_url:
        driver.drive(browser, base_url, ARTIFACTS)
