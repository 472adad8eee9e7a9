"""Drives Home and Interpret in real Chromium, the way a person would, and keeps a screenshot of every step."""

from pathlib import Path
from types import ModuleType

from playwright.sync_api import Page, expect

TABLET = {"width": 820, "height": 1180}
DESK = {"width": 1280, "height": 900}
JOB_MS = 120_000


def drive(browser: ModuleType, base_url: str, artifacts: Path) -> None:
    """Go from Home through a job, its results, agreement and a sheet of ratings.

    Args:
        browser: `tests/app/browser.py`.
        base_url: of a dashboard that is being served, over runs that may be written.
        artifacts: folder for the screenshots.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    with browser.new_page() as page:
        elsewhere: list[str] = []
        page.on(
            "request", lambda request: elsewhere.append(request.url) if browser.leaves(request.url, base_url) else 0
        )
        page.set_viewport_size(DESK)  # pyright: ignore[reportArgumentType]
        for number, (name, step) in enumerate(STEPS.items()):
            step(browser, page, base_url)
            browser.check(page)
            browser.screenshot(page, artifacts / f"{number}-{name}.png")
        for name, look in LOOKS.items():
            look(page)
            for path, title in (("", "Home"), ("/interpret", "Interpret"), ("/interpret?view=Start", "Interpret")):
                browser.visit(page, f"{base_url}{path}", title)
                overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                assert overflow <= 0, f"{path} is {overflow} pixels too wide"
                browser.screenshot(page, artifacts / f"{name}-{path.strip('/').replace('?', '-') or 'home'}.png")
        assert not elsewhere, f"the dashboard fetched from elsewhere: {elsewhere[:3]}"


def home(browser: ModuleType, page: Page, base_url: str) -> None:
    """Home shows the dictionaries and the runs, and filters them."""
    browser.visit(page, base_url, "Home")
    expect(page.get_by_role("heading", name="Dictionaries")).to_be_visible()
    page.get_by_test_id("stButtonGroup").get_by_text("scores", exact=True).click()
    expect(page.get_by_text("1 finished run, the newest first")).to_be_visible()
    assert "kind=scores" in page.url
    browser.settled(page)


def start(browser: ModuleType, page: Page, base_url: str) -> None:
    """The command is shown, forecast, started and watched."""
    query = "view=Start&n=6&explainer=default&embedder=hashed&scorers=detection&scorers=fuzzing"
    browser.visit(page, f"{base_url}/interpret?{query}", "Interpret")
    expect(page.get_by_text("--n-latents 6 --explainer default")).to_be_visible()
    page.get_by_role("button", name="Forecast").click()
    expect(page.get_by_text("dry run with scripted")).to_be_visible(timeout=JOB_MS)
    browser.settled(page)


def watch(browser: ModuleType, page: Page, base_url: str) -> None:
    """A job that was started ends, and the page says so by itself."""
    page.get_by_role("button", name="Start", exact=True).last.click()
    expect(page.get_by_text("✓ finished").first).to_be_visible(timeout=JOB_MS)
    browser.settled(page)


def results(browser: ModuleType, page: Page, base_url: str) -> None:
    """The table and the plots of the newest."""
    browser.visit(page, f"{base_url}/interpret", "Interpret")
    expect(page.get_by_role("heading", name="Interpretation by default")).to_be_visible()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    browser.settled(page)


def agreement(browser: ModuleType, page: Page, base_url: str) -> None:
    """Scorers beside one another."""
    browser.visit(page, f"{base_url}/interpret?view=Agreement", "Interpret")
    expect(page.get_by_text("said yes where it fires")).to_be_visible()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    browser.settled(page)


def rate(browser: ModuleType, page: Page, base_url: str) -> None:
    """One explanation at a time."""
    browser.visit(page, f"{base_url}/interpret?view=Rate", "Interpret")
    name = page.get_by_role("textbox", name="Your name")
    name.fill("ada")
    name.press("Enter")
    page.get_by_role("spinbutton", name="How many").fill("4")
    page.get_by_role("button", name="Make the sheet").click()
    expect(page.get_by_text("0 of 4 rated")).to_be_visible(timeout=JOB_MS)
    assert "sheet=" in page.url
    browser.settled(page)


def reveal(browser: ModuleType, page: Page, base_url: str) -> None:
    """The keyboard rates; the end tells."""
    for n in range(1, 4):
        page.locator("body").press(str(n + 1))
        expect(page.get_by_text(f"{n} of 4 rated")).to_be_visible()
        browser.settled(page)
    page.get_by_role("button", name="Skip").click()
    expect(page.get_by_text("This sheet is done")).to_be_visible()
    browser.settled(page)


STEPS = {
    "home": home,
    "start": start,
    "watch": watch,
    "results": results,
    "agreement": agreement,
    "rate": rate,
    "reveal": reveal,
}
LOOKS = {
    "tablet": lambda page: page.set_viewport_size(TABLET),
    "dark": lambda page: (page.set_viewport_size(DESK), page.emulate_media(color_scheme="dark")),
}
