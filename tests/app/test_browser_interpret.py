"""Home and Interpret as served, in real Chromium, on the tiny demo."""

import importlib.util
import shutil
from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "interpret"


@pytest.fixture(scope="module")
def driver():
    """The steps."""
    spec = importlib.util.spec_from_file_location(
        "monosem_tests_browser_interpret", Path(__file__).with_name("browser_interpret.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_person_starts_a_job_reads_it_and_rates_it(browser, driver, tiny_root, tmp_path):
    browser.require_chromium()
    shutil.copytree(tiny_root, tmp_path / "runs")
    with browser.served(tmp_path / "runs") as base_url:
        driver.drive(browser, base_url, ARTIFACTS)
