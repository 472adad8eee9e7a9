"""The page of `monosem report`: its numbers are a recount's, its queries can be asked again, nothing in it is run."""

import html
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import main
from app.interpretation.job import POLICY, render, write_page
from app.interpretation.view import ABOVE_COLUMNS, FATES, Page, page
from autointerp.reporting import Figures, LatentEvidence, Subject, evidence, figures, subject
from autointerp.statistics import METRICS, Answers
from store.feature_index import FeatureIndex
from store.run import find_run

EVIL = '<script>window.pwned=1</script><img src=x onerror="window.pwned=1">\u202eabc'


@pytest.fixture(scope="module")
def index(tiny_root: Path) -> FeatureIndex:
    return FeatureIndex(find_run(tiny_root, "latest", "index").folder)


@pytest.fixture(scope="module")
def of(index: FeatureIndex) -> Subject:
    return subject(index)


@pytest.fixture(scope="module")
def found(index: FeatureIndex, of: Subject) -> Figures:
    return figures(index, of)


@pytest.fixture(scope="module")
def latents(index: FeatureIndex, of: Subject, found: Figures) -> list[LatentEvidence]:
    return evidence(index, of, [row["latent"] for row in found.chosen])


@pytest.fixture(scope="module")
def shown(index: FeatureIndex, of: Subject, found: Figures, latents: list[LatentEvidence]) -> Page:
    return page(index, of, found, latents)


@pytest.fixture(scope="module")
def text(shown: Page) -> str:
    return render(shown)


def _tables(text: str) -> list[list[list[str]]]:
    """Every table of a page, as rows of cells."""
    return [
        [
            [html.unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)]
            for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
        ]
        for table in re.findall(r"<table>(.*?)</table>", text, re.DOTALL)
    ]


def _table(text: str, *columns: str) -> list[dict[str, str]]:
    """The rows of the first table that has these columns in front."""
    head, *rows = next(table for table in _tables(text) if tuple(table[0][: len(columns)]) == columns)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_numbers_on_the_page_are_those_of_a_recount_of_the_examples(index: FeatureIndex, of: Subject, text: str):
    answers: dict[tuple[str, int], list[tuple[float, float]]] = {}
    n_answers: dict[str, int] = {}
    for row in index.arrow("SELECT * FROM examples").to_pylist():
        if row["run"] == of.scores[0].id and row["answer"] is not None:
            answers.setdefault((row["arm"], row["latent"]), []).append((row["truth"], row["answer"]))
            n_answers[row["arm"]] = n_answers.get(row["arm"], 0) + 1
    values: dict[str, dict[int, float]] = {}
    for (arm, latent), pairs in answers.items():
        value = METRICS["auroc"](Answers(*np.array(pairs).T))
        if value is not None:
            values.setdefault(arm, {})[latent] = value
    assert len(of.scores) == 1
    told = {row["arm"]: row for row in _table(text, *ABOVE_COLUMNS[:3])}
    assert told.keys() == values.keys()
    for arm, own in values.items():
        assert told[arm]["mean"] == f"{np.mean(list(own.values())):.3f}"
        assert told[arm]["latents"] == str(len(own))
        both = [values["explanation"][latent] - value for latent, value in own.items()]
        assert arm == "explanation" or told[arm]["minus null"] == f"{np.mean(both):+.3f}"
    n_read = {row["arm"]: row["read"] for row in _table(text, "scorer", "arm", "read")}
    assert n_read == {arm: f"{n:,}" for arm, n in n_answers.items()}


def test_latents_on_the_page_add_up_to_the_width(index: FeatureIndex, text: str):
    for row in _table(text, "scorer", "dead"):
        counts = [int(row[name.replace("_", " ")].replace(",", "")) for name in FATES]
        assert sum(counts) == int(row["latents in all"].replace(",", "")) == index.n_latents


def test_every_query_on_the_page_can_be_asked_again(tiny_root: Path, text: str, capsys: pytest.CaptureFixture):
    queries = [html.unescape(query) for query in re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)]
    assert len(queries) > 10
    for query in queries:
        assert main(["sql", query, "--root", str(tiny_root), "--format", "json"]) == 0, query
    capsys.readouterr()


def test_every_section_has_its_queries(shown: Page):
    assert all(section.queries for section in shown.sections)
    assert len({section.id for section in shown.sections}) == len(shown.sections)


def test_nothing_that_a_corpus_or_a_model_says_is_more_than_text(
    index: FeatureIndex, of: Subject, found: Figures, latents: list[LatentEvidence]
):
    evil = [_evil(each) for each in latents]
    calls = [{"model": EVIL, "prompt": EVIL, "n_calls": 1, "n_tokens_in": 2, "n_tokens_out": 3, "usd": None}]
    hostile = replace(
        found,
        leakage=[{"latent": 1, "quoted": 0.5, "text": EVIL, "n_explained": 3}],
        unexplained=[{"reason": EVIL, "n_latents": 1}],
        calls=[{**row, "n_unpriced": 1} for row in calls],
    )
    text = render(page(index, of, hostile, evil))
    assert text.count("window.pwned") > 10
    assert "<script>window.pwned" not in text
    assert "<img src=x" not in text
    assert "\u202e" not in text


def _evil(one: LatentEvidence) -> LatentEvidence:
    examples = [
        replace(each, row={**each.row, "kind": EVIL}, spans=[replace(span, text=EVIL) for span in each.spans])
        for each in one.examples
    ]
    told: Mapping[str, Any] = {**one.text, "text": EVIL, "method": EVIL, "prompt": EVIL}
    return replace(one, text=told, examples=examples)


def test_the_page_needs_nothing_else(text: str):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert html.unescape(policy[1]) == POLICY
    assert POLICY.startswith("default-src 'none'")
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", text)
    assert text.count("plotly.js v") == 1


def test_the_command_writes_the_page_and_prints_its_main_tables(
    tiny_root: Path, tmp_path: Path, found: Figures, capsys: pytest.CaptureFixture
):
    out, latent = tmp_path / "page.html", found.chosen[0]["latent"]
    assert main(["report", "--root", str(tiny_root), "--out", str(out), "--latents", str(latent)]) == 0
    told = capsys.readouterr().out
    assert "minus null" in told
    assert "not chosen" in told
    text = out.read_text(encoding="utf-8")
    assert re.findall(r'id="latent-(\d+)"', text) == [str(latent)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--latents 63", r"latent 63 has no explanation"),
        ("--explanations ffff0000ffff", "no explanations 'ffff0000ffff' of index"),
    ],
)
def test_what_is_not_there_is_one_line(
    tiny_root: Path, tmp_path: Path, found: Figures, arguments: str, said: str, capsys: pytest.CaptureFixture
):
    assert 63 not in found.density[next(iter(found.density))].latents
    assert main(["report", "--root", str(tiny_root), "--out", str(tmp_path / "x.html"), *arguments.split()]) == 2
    assert re.search(said, capsys.readouterr().err.replace("\n", " "))
    assert not (tmp_path / "x.html").exists()


@pytest.mark.slow
def test_in_a_browser_every_plot_is_drawn_and_nothing_is_fetched(shown: Page, browser, tmp_path: Path):
    browser.require_chromium()
    from playwright.sync_api import sync_playwright

    write_page(shown, tmp_path / "page.html")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(browser.CHROMIUM), args=list(browser.FLAGS))
        tab = chromium.new_page(viewport={"width": 1200, "height": 900})
        complaints, fetched = [], []
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: fetched.append(request.url))
        tab.goto((tmp_path / "page.html").as_uri())
        tab.wait_for_selector(".js-plotly-plot .main-svg")
        n_plots = sum(len(section.plots) for section in shown.sections)
        assert tab.locator(".js-plotly-plot").count() == n_plots
        boxes = tab.eval_on_selector_all(
            ".js-plotly-plot",
            "all => all.map(e => e.querySelector('.main-svg').clientWidth <= e.parentElement.clientWidth + 1)",
        )
        assert all(boxes)
        assert complaints == []
        assert fetched == [(tmp_path / "page.html").as_uri()]
        chromium.close()
