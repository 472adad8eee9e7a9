"""Whatever stands in texts, tokens, explanations, labels and names of lists is shown as text, on every page."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest

from app.web.navigation import SCREENS
from store.notes import Notes
from store.run import find_run

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "hostile"
FIRST = 8
"""The latent with the first of the texts; the others follow."""


@pytest.fixture(scope="module")
def corpus(beside) -> tuple[str, ...]:
    return beside("hostile").CORPUS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, fixture_index, corpus: tuple[str, ...]) -> Path:
    """The small workbench, and beside its texts the hostile ones wherever people and models write."""
    root = tmp_path_factory.mktemp("hostile") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        document = ("<i>source</i>", corpus[1], " ".join(text[:200] for text in corpus))
        patch.setattr(fixture_index, "DOCUMENTS", (*fixture_index.DOCUMENTS[:2], document))
        patch.setattr(fixture_index, "EVIL_MARKDOWN", "\n".join(corpus))
        fixture_index.build_workbench(root)
    notes, sae = Notes(root), find_run(root, "latest", "sae").id
    for i, text in enumerate(corpus):
        latent = (FIRST + i) % fixture_index.D_SAE
        notes.label(sae, latent, text.replace("\x00", ""), "<b>author</b>")
        notes.add_to_list(sae, text[:40].replace("\x00", "").strip() or "list", [latent], "<b>author</b>")
        notes.record_steering(sae, {"prompt": text}, {"steered": text}, "<b>author</b>")
    return root


@pytest.mark.slow
def test_nothing_runs_is_fetched_or_hidden_on_any_page(browser, fixture_index, root: Path, corpus: tuple[str, ...]):
    browser.require_chromium()
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    with browser.served(root) as base_url, browser.new_page() as page:
        dialogs: list[str] = []
        elsewhere: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda each: elsewhere.append(each.url) if browser.leaves(each.url, base_url) else None)
        paths = [name for name in SCREENS if name not in ("home", "feature")]
        latents = [fixture_index.SCORED, fixture_index.HOSTILE, *range(FIRST, FIRST + 4)]
        typed = [
            f"{where}={quote(text)}"
            for text in (corpus[1], corpus[6], corpus[14], corpus[23], corpus[28])
            for where in (
                "prompt?text",
                "steering?latents=3&prompt",
                "features?q",
                "features?sql",
                "home?index",
                "home?run",
            )
        ]
        visits = ["", *paths, *(f"feature?latent={latent}" for latent in latents), *typed]
        for number, path in enumerate(visits):
            page.goto(f"{base_url}/{path}")
            page.locator("h1").first.wait_for()
            browser.settled(page)
            browser.check(page)
            for mark in page.locator("mark:visible").all()[:3]:
                mark.hover(force=True)
            assert page.locator("a[href^='javascript'], [onerror], [onload], [onmouseover], iframe").count() == 0, path
            page.screenshot(path=ARTIFACTS / f"{number:02}-{re.split('[?=]', path)[0] or 'home'}.png")
        shown = page.goto(f"{base_url}/feature?latent={fixture_index.HOSTILE}") and page
        browser.settled(page)
        said = shown.locator(".ms").all_inner_texts()
        assert any("<script>window.pwned=1</script>" in text for text in said), "shown literally"
        assert any("**bold** _em_ `code`" in text for text in said), "no Markdown"
        assert not any("\u202e" in text for text in said), "what turns text around is shown as a sign"
        assert page.evaluate("window.pwned") is None
        assert not dialogs
        assert not elsewhere, elsewhere[:3]
