"""Drives the steering lab in real Chromium, the way a person would, and keeps a screenshot of every step."""

from pathlib import Path
from types import ModuleType
from urllib.parse import urlencode

from playwright.sync_api import Page, expect

DESK = {"width": 1280, "height": 900}
TABLET = {"width": 820, "height": 1180}
TITLE = "Steering lab"
WORDS = {"words": "sea, boat", "sweep_prompts": "At night\nFar above", "retain": "It rained all day.\nWe went home."}


def drive(browser: ModuleType, base_url: str, artifacts: Path, latents: tuple[int, int], *, can_stop: bool) -> None:
    """Steer with two latents, stop, go back in history, sweep, upload.

    Args:
        browser: `tests/app/browser.py`.
        base_url: of a dashboard that is being served, over runs that may be written.
        artifacts: folder for the screenshots.
        latents: two that fire.
        can_stop: whether the model is slow enough to be stopped by hand.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    with browser.new_page() as page:
        elsewhere: list[str] = []
        page.on(
            "request", lambda request: elsewhere.append(request.url) if browser.leaves(request.url, base_url) else 0
        )
        page.set_viewport_size(DESK)  # pyright: ignore[reportArgumentType]
        for number, (name, step) in enumerate(STEPS.items()):
            if name == "stopped" and not can_stop:
                continue
            step(browser, page, base_url, latents)
            browser.check(page)
            browser.screenshot(page, artifacts / f"{number}-{name}.png")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for width, size in (("desk", DESK), ("tablet", TABLET)):
                page.set_viewport_size(size)  # pyright: ignore[reportArgumentType]
                expect(page.get_by_role("heading", name=TITLE, level=1, exact=True)).to_be_visible()
                browser.settled(page)
                overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                assert overflow <= 0, f"{width} is {overflow} pixels too wide"
                browser.screenshot(page, artifacts / f"{scheme}-{width}.png")
        assert not elsewhere, f"the dashboard fetched from elsewhere: {elsewhere[:3]}"


def filled_in(browser: ModuleType, page: Page, base_url: str, latents: tuple[int, int]) -> None:
    """A URL opens it filled in, and what is chosen goes to the URL."""
    query = urlencode({"latents": f"{latents[0]},{latents[1]}", "prompt": "The sea <b>was</b>", "chat": "false"})
    browser.visit(page, f"{base_url}/steering?{query}", TITLE)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("The sea <b>was</b>")
    page.get_by_label("Strength, × q99.9").first.fill("3")
    page.get_by_label("Strength, × q99.9").first.press("Enter")
    browser.settled(page)
    assert f"strength{latents[0]}=3" in page.url
    page.get_by_label("Samples", exact=True).fill("2")
    page.get_by_label("Samples", exact=True).press("Enter")
    browser.settled(page)
    expect(page.get_by_text("x′ = x + (").first).to_be_visible()


def steered(browser: ModuleType, page: Page, base_url: str, latents: tuple[int, int]) -> None:
    """Both samples stand there, each beside its clean text, and the mask with them."""
    page.get_by_role("button", name="Generate both").click()
    expect(page.get_by_text("the hook fired").nth(1)).to_be_visible(timeout=browser.MODEL_MS)
    browser.settled(page)
    assert page.locator(".ms-columns .ms-text").count() == 4
    clean, changed = (page.locator(".ms-columns .ms-text").nth(side).inner_text() for side in (0, 1))
    assert clean != changed, "the edits changed nothing"
    assert page.locator("[title^='left alone']").count() >= 2
    expect(page.get_by_text("Click a row to bring its settings back.")).to_be_visible()


def stopped(browser: ModuleType, page: Page, base_url: str, latents: tuple[int, int]) -> None:
    """Texts stop in the middle, and what was written stays."""
    page.get_by_label("Tokens", exact=True).first.fill("200")
    page.get_by_label("Tokens", exact=True).first.press("Enter")
    browser.settled(page)
    page.get_by_role("button", name="Generate both").click()
    expect(page.get_by_text("tokens of both texts")).to_be_visible(timeout=browser.MODEL_MS)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("stopped after")).to_be_visible()
    expect(page.get_by_text("Stopping: the model finishes")).to_have_count(0)
    browser.settled(page)


def exported(browser: ModuleType, page: Page, base_url: str, latents: tuple[int, int]) -> None:
    """The Python and the command line stand there."""
    page.get_by_text("Reproduce this: Python and command line").click()
    expect(page.get_by_text("from autointerp.steer_config import SteerConfig")).to_be_visible()
    expect(page.get_by_text("monosem steer 'The sea").first).to_be_visible()


def swept(browser: ModuleType, page: Page, base_url: str, latents: tuple[int, int]) -> None:
    """A sweep is measured, and its id is in the URL."""
    small = {"sw_n_draws": "2", "sw_n_tokens": "4", "strengths": "0.5, 1"}
    query = urlencode({"latents": str(latents[0]), "prompt": "The sea", "chat": "false", **WORDS, **small})
    browser.visit(page, f"{base_url}/steering?{query}", TITLE)
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.get_by_text("suggested strengths, always:")).to_be_visible(timeout=browser.MODEL_MS)
    expect(page.get_by_test_id("stPlotlyChart").first).to_be_visible(timeout=browser.PAGE_LOAD_MS)
    browser.settled(page)
    assert "sweep=" in page.url


STEPS = {"filled-in": filled_in, "steered": steered, "stopped": stopped, "exported": exported, "swept": swept}
