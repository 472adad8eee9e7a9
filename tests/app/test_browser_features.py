"""The pages of latents as served, in real Chromium, on the small workbench."""

from pathlib import Path

import numpy as np
import pytest

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "features"
MOST_MS = 700.0
"""From a click to a page that is fully drawn."""


@pytest.fixture(scope="module")
def driver(beside):
    """The steps."""
    return beside("browser_features")


@pytest.mark.slow
def test_the_next_latent_and_a_filtered_table_are_drawn_soon(driver, browser, runs_root):
    browser.require_chromium()
    with browser.served(runs_root) as base_url:
        following = driver.times_to_next(browser, base_url, 8, 15)
        filtered = driver.times_to_filter(browser, base_url, [f"word{number}" for number in range(10, 22)])
    # Their median: other work on the machine is none of theirs.
    assert np.median(following) <= MOST_MS, following.round()
    assert np.median(filtered) <= MOST_MS, filtered.round()


@pytest.mark.slow
def test_a_person_can_go_through_latents(driver, browser, fixture_index, rich_root):
    browser.require_chromium()
    with browser.served(rich_root) as base_url:
        driver.drive(browser, base_url, ARTIFACTS, fixture_index.SCORED, "boats")
