"""The pages of latents in real Chromium: table, maps, contexts, documents and notes, by mouse and by keyboard."""

import re
import time
from pathlib import Path
from types import ModuleType

import numpy as np
from playwright.sync_api import Page, expect

WIDTHS = (1280, 820)
DRAWN = """title => {
    const app = document.querySelector('[data-testid=stApp]'), heading = document.querySelector('h1')
    return heading?.innerText.trim() === title && app.dataset.testScriptState !== 'running'
        && !document.querySelector('[data-stale=true], [data-testid=stSkeleton]')
}"""
"""Whether a page of that title is there, and all of it."""
REST_MS = 300
"""Between two measured steps: a person looks at what came."""


def drive(browser: ModuleType, base_url: str, artifacts: Path, latent: int, word: str) -> None:
    """Go through both pages at both widths, and keep a screenshot of every step.

    Args:
        browser: the driver, `tests/app/browser.py`.
        base_url: of a dashboard that may be written to.
        artifacts: folder for the screenshots.
        latent: an alive latent to begin with; the next two are alive, too.
        word: what documents have.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    with browser.new_page() as page:
        elsewhere: list[str] = []
        leaves = browser.leaves
        page.on("request", lambda request: elsewhere.append(request.url) if leaves(request.url, base_url) else None)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 1000})
            for name, step in STEPS.items():
                step(browser, page, base_url, latent, word)
                browser.settled(page)
                browser.check(page)
                assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, (width, name)
                browser.screenshot(page, artifacts / f"{name}-{width}.png")
        assert not elsewhere, f"the dashboard fetched from elsewhere: {elsewhere[:3]}"


def table(browser: ModuleType, page: Page, base_url: str, latent: int, word: str) -> None:
    """A condition in SQL filters, and is in the URL; a wrong one is one line."""
    browser.visit(page, f"{base_url}/features", "Features")
    box = page.get_by_role("textbox", name="Condition in SQL")
    box.fill("densty < 1")
    box.press("Enter")
    expect(page.get_by_text("Candidate bindings")).to_be_visible()
    box.fill(f"latent >= {latent} ORDER BY latent LIMIT 3")
    box.press("Enter")
    expect(page.get_by_text("3 latents.")).to_be_visible()
    assert "sql=" in page.url


def search(browser: ModuleType, page: Page, base_url: str, latent: int, word: str) -> None:
    """Latents are found by the text that they fire on."""
    browser.visit(page, f"{base_url}/features?by=text&q={word}", "Features")
    expect(page.get_by_text("Search by text:")).to_be_visible()


def lasso(browser: ModuleType, page: Page, base_url: str, latent: int, word: str) -> None:
    """What is drawn around on the plane is what the table shows, and goes again."""
    browser.visit(page, f"{base_url}/features?map=decoder plane", "Features")
    chart = page.locator(".js-plotly-plot .nsewdrag").first
    chart.scroll_into_view_if_needed()
    where = chart.bounding_box()
    assert where is not None
    corners = [(0.05, 0.05), (0.6, 0.05), (0.6, 0.95), (0.05, 0.95), (0.05, 0.06)]
    places = [(where["x"] + where["width"] * x, where["y"] + where["height"] * y) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()
    said = page.get_by_text("lie in the region drawn on the map")
    expect(said).to_be_visible()
    inside, whole = map(int, re.findall(r"\d+", said.inner_text().replace(",", ""))[:2])
    assert 0 < inside < whole
    assert "within=" in page.url
    browser.visit(page, page.url, "Features")
    expect(page.get_by_text(f"{inside:,} of {whole:,} lie in the region")).to_be_visible()
    page.get_by_role("button", name="All again").click()
    expect(said).to_have_count(0)


def by_keyboard(browser: ModuleType, page: Page, base_url: str, latent: int, word: str) -> None:
    """N, N and P lead to the next latent, and a token under the pointer tells its activation."""
    browser.visit(page, f"{base_url}/feature?latent={latent}", f"Latent {latent}")
    for key, then in (("n", latent + 1), ("n", latent + 2), ("p", latent + 1)):
        page.keyboard.press(key)
        page.wait_for_function(DRAWN, arg=f"Latent {then}")
        assert f"latent={then}" in page.url
    token = page.locator(".ms-context mark").first
    token.scroll_into_view_if_needed()
    token.hover()
    shown = token.evaluate("element => getComputedStyle(element, '::after').content")
    assert shown.strip('"') == token.get_attribute("data-value")


def bands(browser: ModuleType, page: Page, base_url: str, latent: int, word: str) -> None:
    """Another band is one click away, and in the URL."""
    browser.visit(page, f"{base_url}/feature?latent={latent}", f"Latent {latent}")
    page.get_by_role("tab", name="Quantiles").click()
    expect(page.get_by_text("of equal counts of peaks").first).to_be_visible()
    assert "band=Quantiles" in page.url
    page.get_by_text("snippet", exact=True).click()
    page.wait_for_url(re.compile("zoom=snippet"))


def document(browser: ModuleType, page: Page, base_url: str, latent: int, word: str) -> None:
    """A context opens its document, scrolled to the token."""
    browser.visit(page, f"{base_url}/feature?latent={latent}", f"Latent {latent}")
    page.locator("[class*=st-key-open-top-0] button").first.click()
    box = page.locator(".ms-doc")
    expect(box).to_be_visible()
    assert "doc=" in page.url
    peak, around = box.locator(".ms-peak").bounding_box(), box.bounding_box()
    assert peak is not None
    assert around is not None
    assert around["y"] <= peak["y"] <= around["y"] + around["height"], "the token that was asked for is out of sight"


def evidence(browser: ModuleType, page: Page, base_url: str, latent: int, word: str) -> None:
    """Folds open to what stands behind the figures."""
    opened = "evidence=true&effects=true&ngrams=true&related=Fires together"
    browser.visit(page, f"{base_url}/feature?latent={latent}&{opened}", f"Latent {latent}")
    expect(page.get_by_text("a normal distribution has kurtosis 3")).to_be_visible()
    expect(page.get_by_text("of all firings").first).to_be_visible()


def label(browser: ModuleType, page: Page, base_url: str, latent: int, word: str) -> None:
    """A label is written, shown literally, and a column of the table."""
    browser.visit(page, f"{base_url}/feature?latent={latent}", f"Latent {latent}")
    written = f"<b>width</b> {page.viewport_size['width'] if page.viewport_size else 0}"
    page.get_by_text("Write", exact=True).click()
    box = page.get_by_role("textbox", name="Label", exact=True)
    box.fill(written)
    box.press("Enter")
    expect(page.locator(".ms b").filter(has_text=written)).to_be_visible()
    expect(page.get_by_role("button", name="Next")).to_be_visible()


STEPS = {
    "table": table,
    "search": search,
    "lasso": lasso,
    "by-keyboard": by_keyboard,
    "bands": bands,
    "document": document,
    "evidence": evidence,
    "label": label,
}


def times_to_next(browser: ModuleType, base_url: str, latent: int, n: int) -> np.ndarray:
    """`[n]` milliseconds from a key to the next latent, fully drawn; the first three are left out."""
    with browser.new_page() as page:
        page.set_viewport_size({"width": WIDTHS[0], "height": 1000})
        browser.visit(page, f"{base_url}/feature?latent={latent}", f"Latent {latent}")
        return _timed(page, n, lambda i: page.keyboard.press("n"), lambda i: f"Latent {latent + i + 1}")


def times_to_filter(browser: ModuleType, base_url: str, words: list[str]) -> np.ndarray:
    """Milliseconds from each word to the table that it leaves, fully drawn; the first three are left out."""
    with browser.new_page() as page:
        page.set_viewport_size({"width": WIDTHS[0], "height": 1000})
        browser.visit(page, f"{base_url}/features", "Features")
        box = page.get_by_role("textbox", name="Search", exact=True)

        def ask(i: int) -> None:
            box.fill(words[i])
            box.press("Enter")
            page.wait_for_function("word => location.search.includes(`q=${word}`)", arg=words[i])

        return _timed(page, len(words), ask, lambda i: "Features")


def _timed(page: Page, n: int, act, title) -> np.ndarray:
    times = []
    for i in range(n):
        started = time.perf_counter()
        act(i)
        page.wait_for_function(DRAWN, arg=title(i))
        times.append(1000 * (time.perf_counter() - started))
        page.wait_for_timeout(REST_MS)
    return np.array(times[3:])
