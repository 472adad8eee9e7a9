"""The page Compare in real Chromium: figures, latents and settings, wide, on a tablet and in the dark."""

from pathlib import Path
from types import ModuleType

from playwright.sync_api import Page, expect

WIDE, TABLET = {"width": 1280, "height": 900}, {"width": 820, "height": 1100}


def drive(browser: ModuleType, base_url: str, artifacts: Path, a: str, b: str) -> None:
    """Go through every view of two dictionaries, and keep a screenshot of each.

    Args:
        browser: the driver, `tests/app/browser.py`.
        base_url: of a dashboard that is being served.
        artifacts: folder for the screenshots.
        a: one dictionary's id; it was explained.
        b: the other's; both are matched.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    with browser.new_page() as page:
        elsewhere: list[str] = []
        leaves = browser.leaves
        page.on("request", lambda request: elsewhere.append(request.url) if leaves(request.url, base_url) else None)
        page.set_viewport_size(WIDE)  # pyright: ignore[reportArgumentType]
        for number, (name, step) in enumerate(STEPS.items()):
            step(browser, page, base_url, a, b)
            browser.check(page)
            browser.screenshot(page, artifacts / f"{number}-{name}.png")
        assert not elsewhere, f"the dashboard fetched from elsewhere: {elsewhere[:3]}"


def figures(browser: ModuleType, page: Page, base_url: str, a: str, b: str) -> None:
    """What was measured stands side by side, and both dictionaries are marked among all."""
    browser.visit(page, f"{base_url}/compare?a={a}&b={b}", "Compare")
    expect(page.get_by_test_id("stDataFrame").first).to_be_visible()
    plot = page.get_by_test_id("stPlotlyChart").first
    expect(plot.locator(".main-svg").first).to_be_visible()
    for side in ("a", "b"):
        expect(plot.locator(".legendtext", has_text=side).first).to_be_visible()


def latents(browser: ModuleType, page: Page, base_url: str, a: str, b: str) -> None:
    """A click on a row shows both latents, and the URL keeps them."""
    page.get_by_test_id("stButtonGroup").get_by_text("Latents").click()
    expect(page.get_by_text("From matching")).to_be_visible(timeout=browser.PAGE_LOAD_MS)
    browser.settled(page)
    assert "view=Latents" in page.url
    # The tables are drawn on canvases; the second one's first row is below a header of its height, 35 pixels.
    page.get_by_test_id("stDataFrame").nth(1).click(position={"x": 260, "y": 52})
    expect(page.locator(".ms-card")).to_have_count(2)
    browser.settled(page)
    assert "pair=" in page.url


def feature(browser: ModuleType, page: Page, base_url: str, a: str, b: str) -> None:
    """The link of the second one opens its page in its own index, and back is the pair."""
    address = page.url
    link = page.get_by_test_id("stPageLink").last
    number = link.inner_text().split()[-3]
    link.get_by_role("link").click()
    expect(page.get_by_role("heading", name=f"Latent {number}", level=1, exact=True)).to_be_visible()
    browser.settled(page)
    assert "index=" in page.url
    page.goto(address)
    expect(page.locator(".ms-card")).to_have_count(2)
    browser.settled(page)


def settings(browser: ModuleType, page: Page, base_url: str, a: str, b: str) -> None:
    """What differs is told, and swapping is in the URL."""
    page.get_by_test_id("stButtonGroup").first.get_by_text("Settings").click()
    expect(page.get_by_text("settings differ")).to_be_visible()
    page.get_by_role("button", name="Swap").click()
    page.wait_for_url(f"**a={b}*")
    browser.settled(page)


def dark(browser: ModuleType, page: Page, base_url: str, a: str, b: str) -> None:
    """The same in the dark."""
    page.emulate_media(color_scheme="dark")
    browser.visit(page, f"{base_url}/compare?a={a}&b={b}", "Compare")


def tablet(browser: ModuleType, page: Page, base_url: str, a: str, b: str) -> None:
    """A tablet's width shows the latents without scrolling sideways."""
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(TABLET)  # pyright: ignore[reportArgumentType]
    browser.visit(page, f"{base_url}/compare?a={a}&b={b}&view=Latents&pair=3-5", "Compare")
    expect(page.locator(".ms-card")).to_have_count(2)
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0, f"the page is {overflow} pixels too wide"


STEPS = {
    "figures": figures,
    "latents": latents,
    "feature": feature,
    "settings": settings,
    "dark": dark,
    "tablet": tablet,
}
