"""The Prompt lab as served, in real Chromium, on the small workbench with the tiny model."""

from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "prompt-tiny"
TEXT = "The harbour <b>was</b> quiet,\nand nobody spoke. <script>window.pwned=1</script> שלום"
SIDES = ("the ship\nthe sail\nthe mast\nthe deck", "def f(x)\nreturn x\nimport os\nfor i in <b>x</b>")


@pytest.fixture(scope="module")
def driver(beside):
    """The steps."""
    return beside("browser_prompt")


@pytest.mark.slow
def test_a_person_can_look_into_a_prompt(browser, driver, runs_root):
    browser.require_chromium()
    with browser.served(runs_root) as base_url:
        driver.drive(browser, base_url, ARTIFACTS, TEXT, SIDES, chat=False)
