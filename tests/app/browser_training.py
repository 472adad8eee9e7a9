"""The page Training in real Chromium: curves, a training that runs while one looks, and one that was killed."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from playwright.sync_api import Page, expect

WIDE, TABLET = {"width": 1280, "height": 900}, {"width": 820, "height": 1100}


def drive(browser: ModuleType, base_url: str, artifacts: Path, ids: list[str], go_on: Callable[[], None]) -> None:
    """Look at trainings, one of them while it goes on, and keep screenshots.

    Args:
        browser: the driver, `tests/app/browser.py`.
        base_url: of a dashboard that is being served.
        artifacts: folder for the screenshots.
        ids: of finished trainings and, last, of one that runs and has logged step 10.
        go_on: lets the running one log step 20.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    asked = "&".join(f"runs={one}" for one in ids)
    with browser.new_page() as page:
        elsewhere: list[str] = []
        leaves = browser.leaves
        page.on("request", lambda request: elsewhere.append(request.url) if leaves(request.url, base_url) else None)
        page.set_viewport_size(WIDE)  # pyright: ignore[reportArgumentType]
        browser.visit(page, f"{base_url}/training?{asked}", "Training")
        expect(page.get_by_text("step 10 of 40")).to_be_visible()
        expect(page.get_by_test_id("stPlotlyChart")).to_have_count(5)
        browser.screenshot(page, artifacts / "0-running.png")
        go_on()
        expect(page.get_by_text("step 20 of 40")).to_be_visible(timeout=browser.PAGE_LOAD_MS)
        browser.check(page)
        _controls(browser, page)
        browser.screenshot(page, artifacts / "1-controls.png")
        _narrow_and_dark(browser, page, page.url)
        browser.screenshot(page, artifacts / "2-tablet-dark.png")
        assert not elsewhere, f"the dashboard fetched from elsewhere: {elsewhere[:3]}"


def killed(browser: ModuleType, base_url: str, artifacts: Path, id_: str) -> None:
    """A killed training says how it goes on."""
    artifacts.mkdir(parents=True, exist_ok=True)
    with browser.new_page() as page:
        page.set_viewport_size(WIDE)  # pyright: ignore[reportArgumentType]
        browser.visit(page, f"{base_url}/training?runs={id_}", "Training")
        expect(page.get_by_text("No process is at it")).to_be_visible(timeout=browser.PAGE_LOAD_MS)
        expect(page.get_by_test_id("stCode").get_by_text("monosem train relu")).to_be_visible(timeout=browser.MODEL_MS)
        browser.check(page)
        browser.screenshot(page, artifacts / "3-killed.png")


def _controls(browser: ModuleType, page: Page) -> None:
    """A log axis and other curves are in the URL."""
    page.get_by_text("Log axis").click()
    page.wait_for_url("**log=true*")
    page.get_by_test_id("stButtonGroup").get_by_text("loss", exact=True).click()
    expect(page.get_by_test_id("stPlotlyChart")).to_have_count(4)
    assert "show=" in page.url
    browser.settled(page)


def _narrow_and_dark(browser: ModuleType, page: Page, address: str) -> None:
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(TABLET)  # pyright: ignore[reportArgumentType]
    browser.visit(page, address, "Training")
    expect(page.get_by_test_id("stPlotlyChart")).to_have_count(4)
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0, f"the page is {overflow} pixels too wide"
