"""Drives a served dashboard in real Chromium, the way a person would, and keeps a screenshot of every step."""

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from app.commands import serve
from bench.chromium import CHROMIUM, FLAGS

START_SECONDS = 60
PAGE_LOAD_MS = 30_000
MODEL_MS = 240_000
"""Loading a model and running it, on a slow machine."""
TEXT = "The harbour <b>was</b> quiet,\nand nobody spoke."
TALLEST = 4000
NARROW = {"width": 420, "height": 900}


def require_chromium() -> None:
    """Skip where there is no Chromium; in continuous integration, fail."""
    if not CHROMIUM.exists():
        missing = f"{CHROMIUM} is missing: install Chromium (apt-get install chromium) or set CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The dashboard of `root`, served until the context ends; its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(serve.command(port), env=serve.environment(root, "latest")) as server:
        try:
            _wait(f"http://127.0.0.1:{port}/_stcore/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait(url: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, f"the server ended with status {server.returncode}"
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError(f"no answer from {url} after {START_SECONDS} seconds")


def drive_dashboard(base_url: str, artifacts: Path, latent: int, without: Container[str] = ()) -> None:
    """Go through every page and every live box.

    Args:
        base_url: of a dashboard that is being served.
        artifacts: folder for the screenshots.
        latent: an alive latent to open, test and steer.
        without: steps that are left out.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    with new_page() as page:
        elsewhere: list[str] = []
        page.on("request", lambda request: elsewhere.append(request.url) if leaves(request.url, base_url) else None)
        for number, (name, step) in enumerate(STEPS.items()):
            if name in without:
                continue
            step(page, base_url, latent)
            check(page)
            screenshot(page, artifacts / f"{number}-{name}.png")
        assert not elsewhere, f"the dashboard fetched from elsewhere: {elsewhere[:3]}"


def draw_report(report: Path, artifacts: Path) -> int:
    """Open a report file; how many plots were drawn. It fetches nothing, and fits its window, wide or narrow."""
    artifacts.mkdir(parents=True, exist_ok=True)
    with new_page() as page:
        elsewhere: list[str] = []
        page.on("request", lambda request: elsewhere.append(request.url) if request.url.startswith("http") else None)
        page.goto(report.resolve().as_uri())
        plots = page.locator(".plots > div")
        expect(plots.first.locator(".main-svg").first).to_be_visible()
        n_drawn = sum(plot.locator(".main-svg").count() > 0 for plot in plots.all())
        assert n_drawn == plots.count()
        assert page.evaluate("window.pwned") is None, "a script from a name ran in the page"
        for width in (1400, NARROW["width"]):
            page.set_viewport_size({"width": width, "height": 1000})
            assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
            page.screenshot(path=artifacts / f"report-{width}.png", full_page=True)
        assert not elsewhere, f"the report fetched from elsewhere: {elsewhere[:3]}"
        return n_drawn


def open_offline(file: Path, artifacts: Path) -> None:
    """Open an exported page: nothing of it runs, nothing is fetched, and it fits its window with all of it unfolded."""
    artifacts.mkdir(parents=True, exist_ok=True)
    with new_page() as page:
        elsewhere: list[str] = []
        page.on(
            "request", lambda request: elsewhere.append(request.url) if not request.url.startswith("file") else None
        )
        page.goto(file.resolve().as_uri())
        page.locator("mark").first.hover()
        assert page.evaluate("window.pwned") is None, "a script from a text ran in the page"
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        for width in (1280, NARROW["width"]):
            page.set_viewport_size({"width": width, "height": 1000})
            assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
            page.screenshot(path=artifacts / f"exported-{width}.png")
        assert not elsewhere, f"the page fetched {elsewhere[:3]}"


def leaves(url: str, base_url: str) -> bool:
    return url.startswith("http") and urlsplit(url).netloc != urlsplit(base_url).netloc


@contextmanager
def new_page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 1000}, color_scheme="light")
            page.set_default_timeout(PAGE_LOAD_MS)
            yield page
        finally:
            browser.close()


def check(page: Page) -> None:
    """No traceback on the page, and nothing that came with a text has run."""
    expect(page.get_by_test_id("stException")).to_have_count(0)
    assert page.evaluate("window.pwned") is None, "a script from a corpus ran in the page"


def screenshot(page: Page, path: Path) -> None:
    """The whole page: it scrolls inside the window, so the window grows to its height."""
    size = page.viewport_size
    assert size is not None
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], min(height, TALLEST))})
    page.screenshot(path=path)
    page.set_viewport_size(size)


def settled(page: Page) -> None:
    """Wait until the server has finished the run and the page shows all of it."""
    # Widgets come as scripts of their own, and grey boxes stand for them until then.
    page.wait_for_load_state("networkidle")
    # A widget's code is fetched when it is first needed; until then a grey bar stands in its place.
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=PAGE_LOAD_MS)
    expect(page.locator("[data-testid=stApp][data-test-script-state=running]")).to_have_count(0, timeout=MODEL_MS)


def visit(page: Page, url: str, title: str) -> None:
    page.goto(url)
    expect(page.get_by_role("heading", name=title, level=1, exact=True)).to_be_visible(timeout=PAGE_LOAD_MS)
    settled(page)


def home(page: Page, base_url: str, latent: int) -> None:
    """The overview shows its figures."""
    visit(page, base_url, "Home")
    expect(page.get_by_test_id("stMetric").filter(has_text="Alive")).to_be_visible()
    expect(page.get_by_test_id("stPlotlyChart")).to_be_visible()


def features(page: Page, base_url: str, latent: int) -> None:
    """The table is filtered, and the filter is in the URL."""
    page.get_by_role("link", name="Browse the features").click()
    expect(page.get_by_role("heading", name="Features", level=1, exact=True)).to_be_visible()
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    box = page.get_by_role("textbox", name="Search", exact=True)
    box.fill("no explanation contains this")
    box.press("Enter")
    expect(page.get_by_text("No latent passes these filters.")).to_be_visible()
    assert "q=no" in page.url
    box.fill("")
    box.press("Enter")
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    settled(page)


def row(page: Page, base_url: str, latent: int) -> None:
    """A click on a row opens a feature."""
    # The table is drawn on a canvas: the second row is 35 pixels high below a header of the same height.
    page.locator(".stDataFrameGlideDataEditor").first.click(position={"x": 260, "y": 52})
    expect(page.get_by_role("heading", name="Latent")).to_be_visible()
    settled(page)


def feature(page: Page, base_url: str, latent: int) -> None:
    """A feature opens by its URL, and a token under the pointer tells its activation."""
    visit(page, f"{base_url}/feature?latent={latent}", f"Latent {latent}")
    token = page.locator(".ms-context mark").first
    token.scroll_into_view_if_needed()
    token.hover()
    assert float(token.get_attribute("data-value") or "nan") > 0
    shown = token.evaluate("element => getComputedStyle(element, '::after').content")
    assert shown.strip('"') == token.get_attribute("data-value"), f"the pointer over a token shows {shown}"


def live_text(page: Page, base_url: str, latent: int) -> None:
    """A text of one's own is run and read back as it was typed."""
    page.get_by_label("Text to run through the model").fill(TEXT)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("Active on")).to_be_visible(timeout=MODEL_MS)
    _reads_as_typed(page)


def _reads_as_typed(page: Page) -> None:
    # A space that is a token of its own, and active, is shown as a dot.
    shown = page.locator(".ms > .ms-text").first.inner_text().replace("·", " ")
    assert "harbour <b>was</b> quiet,⏎and nobody spoke." in shown, shown


def steering(page: Page, base_url: str, latent: int) -> None:
    """Two texts are generated from one seed, and the clamp made them differ."""
    page.get_by_role("button", name="Generate both").click()
    expect(page.get_by_text("clamped to")).to_be_visible(timeout=MODEL_MS)
    clean, steered = (page.locator(".ms-columns .ms-text").nth(side).inner_text() for side in (0, 1))
    assert clean.strip(), "the model continued the prompt with nothing"
    assert clean != steered, "the clamp changed nothing"
    expect(page.get_by_text("Active on")).to_be_visible()


def stopping(page: Page, base_url: str, latent: int) -> None:
    """Texts are there while they are written, and stop in the middle."""
    page.get_by_label("Tokens", exact=True).fill("200")
    page.get_by_role("button", name="Generate both").click()
    expect(page.get_by_text("tokens of both texts")).to_be_visible(timeout=MODEL_MS)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("stopped after")).to_be_visible(timeout=MODEL_MS)
    assert page.locator(".ms-columns .ms-text").last.inner_text().strip(), "what was written is gone"


def next_latent(page: Page, base_url: str, latent: int) -> None:
    """The next button opens the next latent, and the tested text is still there."""
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_role("heading", name=f"Latent {latent + 1}", exact=True)).to_be_visible()
    settled(page)
    assert f"latent={latent + 1}" in page.url
    expect(page.get_by_text("Active on")).to_be_visible()


def prompt(page: Page, base_url: str, latent: int) -> None:
    """The Prompt lab ranks latents on a text, token by token."""
    visit(page, f"{base_url}/prompt", "Prompt lab")
    page.get_by_label("Text or chat", exact=True).fill(TEXT)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_test_id("stDataFrame").first).to_be_visible(timeout=MODEL_MS)
    _reads_as_typed(page)
    settled(page)


def narrow(page: Page, base_url: str, latent: int) -> None:
    """A telephone's width shows a feature without scrolling sideways."""
    page.set_viewport_size(NARROW)  # pyright: ignore[reportArgumentType]
    visit(page, f"{base_url}/feature?latent={latent}", f"Latent {latent}")
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0, f"the page is {overflow} pixels too wide"


STEPS = {
    "home": home,
    "features": features,
    "row": row,
    "feature": feature,
    "live-text": live_text,
    "steering": steering,
    "stopping": stopping,
    "next": next_latent,
    "prompt": prompt,
    "narrow": narrow,
}
