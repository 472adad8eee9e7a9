"""Drives the Prompt lab in real Chromium, the way a person would, and keeps a screenshot of every step."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

MODEL_MS = 240_000
ROW = 35
"""Height of a table's row, and of its head, in pixels."""


def drive(browser: Any, base_url: str, artifacts: Path, text: str, sides: tuple[str, str], *, chat: bool) -> None:
    """Go through the page, in both modes and at a tablet's width and in the dark.

    Args:
        browser: the module with what all drivers use.
        base_url: of a dashboard that is being served.
        artifacts: folder for the screenshots.
        text: to read.
        sides: texts, one a line, to tell apart.
        chat: whether the model has a chat template.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    with browser.new_page() as page:
        elsewhere: list[str] = []
        page.on(
            "request", lambda request: elsewhere.append(request.url) if browser.leaves(request.url, base_url) else None
        )
        steps: Mapping[str, Callable[[], None]] = {
            "text": lambda: _run(browser, page, base_url, text),
            "loss": lambda: _shade_by_loss(browser, page),
            "token": lambda: _pick_a_token(browser, page),
            "effects": lambda: _measure(browser, page),
            "chat": lambda: _chat(browser, page, has_template=chat),
            "tablet": lambda: _tablet(browser, page),
            "contrast": lambda: _contrast(browser, page, base_url, sides),
            "dark": lambda: _dark(browser, page, base_url, text),
            "feature": lambda: _feature(browser, page),
        }
        for number, (name, step) in enumerate(steps.items()):
            step()
            browser.check(page)
            browser.screenshot(page, artifacts / f"{number}-{name}.png")
        assert not elsewhere, f"the dashboard fetched from elsewhere: {elsewhere[:3]}"


def _run(browser: Any, page: Page, base_url: str, text: str) -> None:
    """A text is typed and run, read back as typed, and in the URL."""
    browser.visit(page, f"{base_url}/prompt", "Prompt lab")
    page.get_by_label("Text or chat", exact=True).fill(text)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("Every token.")).to_be_visible(timeout=MODEL_MS)
    browser.settled(page)
    assert "text=" in page.url
    shown = page.locator(".ms > .ms-text").first.inner_text().replace("·", " ").replace("⏎", "")
    assert text.split("\n")[0] in shown, shown


def _shade_by_loss(browser: Any, page: Page) -> None:
    """The toggle shades the text by loss, and a token under the pointer says it."""
    page.get_by_role("radio", name="loss", exact=True).or_(page.get_by_role("button", name="loss", exact=True)).click()
    expect(page.get_by_text("that the model gave it").first).to_be_visible()
    browser.settled(page)
    assert "shade=loss" in page.url
    token = page.locator(".ms > .ms-text mark").nth(2)
    token.hover()
    assert "nats" in token.evaluate("element => getComputedStyle(element, '::after').content")


def _pick_a_token(browser: Any, page: Page) -> None:
    """A click on the fourth token lists its latents, and one on the first of those looks at it."""
    _click(page, 0, 3, 120)
    expect(page.get_by_text("Latents on token 3")).to_be_visible(timeout=browser.PAGE_LOAD_MS)
    browser.settled(page)
    assert "pos=3" in page.url
    _click(page, 1, 0, 60)
    expect(page.get_by_label("Latent", exact=True)).not_to_have_value("", timeout=browser.PAGE_LOAD_MS)
    browser.settled(page)
    assert "latent=" in page.url


def _click(page: Page, table: int, row: int, x: int) -> None:
    """Click a row, as a hand does: a table takes no click before the pointer has moved in it."""
    where = page.get_by_test_id("stDataFrame").nth(table)
    where.hover()
    page.wait_for_timeout(300)
    where.click(position={"x": x, "y": ROW * (row + 1) + ROW // 2})


def _measure(browser: Any, page: Page) -> None:
    """Both effects are measured and told apart."""
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.get_by_role("heading", name="Full ablation effect")).to_be_visible(timeout=MODEL_MS)
    expect(page.get_by_role("heading", name="Direct effect")).to_be_visible()
    browser.settled(page)


def _chat(browser: Any, page: Page, *, has_template: bool) -> None:
    """As a chat the text has the template's tokens; without a template one line says so."""
    page.get_by_text("Through the model's chat template").click()
    page.get_by_role("button", name="Run", exact=True).click()
    if has_template:
        expect(page.locator(".ms > .ms-text").first).to_contain_text("assistant", timeout=MODEL_MS)
    else:
        expect(page.get_by_text("no chat template")).to_be_visible(timeout=MODEL_MS)
        page.get_by_text("Through the model's chat template").click()
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.get_by_text("Every token.")).to_be_visible(timeout=MODEL_MS)
    browser.settled(page)


def _tablet(browser: Any, page: Page) -> None:
    """Nothing is cut off at a tablet's width."""
    page.set_viewport_size({"width": 820, "height": 1180})
    browser.settled(page)
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def _contrast(browser: Any, page: Page, base_url: str, sides: tuple[str, str]) -> None:
    """Two sets of lines are told apart."""
    page.set_viewport_size({"width": 1280, "height": 1000})
    browser.visit(page, f"{base_url}/prompt?mode=two+sides", "Prompt lab")
    for name, side in zip("AB", sides, strict=True):
        page.get_by_label(f"{name}, a text a line").fill(side)
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("heading", name="More in B")).to_be_visible(timeout=MODEL_MS)
    browser.settled(page)
    assert "a=" in page.url


def _dark(browser: Any, page: Page, base_url: str, text: str) -> None:
    """A URL alone brings back the view, in the dark too."""
    page.emulate_media(color_scheme="dark")
    query = page.evaluate("text => new URLSearchParams({text, shade: 'error', pos: '4'}).toString()", text)
    browser.visit(page, f"{base_url}/prompt?{query}", "Prompt lab")
    expect(page.get_by_text("Latents on token 4")).to_be_visible(timeout=MODEL_MS)
    browser.settled(page)


def _feature(browser: Any, page: Page) -> None:
    """The latent that is looked at opens, with the text."""
    page.get_by_role("link", name="Open the feature").click()
    expect(page.get_by_role("heading", name="Latent", level=1)).to_be_visible()
    expect(page.get_by_text("Active on")).to_be_visible(timeout=MODEL_MS)
    browser.settled(page)
