"""Cards and figures: what is hostile is shown and never interpreted, and what is known is shown in full."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cards import (
    HISTOGRAM_HEIGHT,
    STYLE,
    context_html,
    escape,
    explanations_html,
    feature_card_html,
    histogram_svg,
    logits_html,
    markdown_text,
    number,
    static_page,
    token_html,
    visible,
)
from app.figures import activation_histogram, density_figure
from store.latents import LatentPage, Logit, Window

HOSTILE = ["<b>", "</span>", "<|im_start|>", '"><script>alert(1)</script>', "'", "&lt;", "\n", " \n", "שלום", "👩‍👩‍👧"]
STATISTICS = {"n_fired": 5, "n_docs": 2, "density": 0.01, "min": 0.5, "max": 8.0, "q50": 1.0, "q999": 7.9, "mean": 2.0}
EXPLANATION = {"explainer": "tokens", "text": "fires on <b>", "method": "counts", "n_contexts": 9, "n_docs": 4}
SCORE = {
    "explainer": "tokens",
    "scorer": "embedding",
    "arm": "explanation",
    "value": 0.8,
    "ci_low": 0.7,
    "ci_high": 0.9,
    "chance": 0.5,
    "n_judged": 40,
    "n_unparsed": 1,
    "n_docs": 6,
    "n_docs_shared": 0,
    "run": "r1",
}
NULL = SCORE | {"arm": "shuffled", "value": 0.51, "ci_low": 0.4, "ci_high": 0.62}


def a_page(**changes) -> LatentPage:
    fields = {
        "latent": 3,
        "statistics": STATISTICS,
        "histogram": np.array([3, 1, 0, 1]),
        "promoted": (Logit(1, "<b>", 1.5),),
        "suppressed": (Logit(2, "\n", -0.5),),
        "explanations": (EXPLANATION,),
        "scores": (SCORE, NULL),
    }
    return LatentPage(**{**fields, **changes})


def a_window(tokens: list[str], title: str = "a title", band: str = "top") -> Window:
    return Window(
        band=band,
        value=4.0,
        doc_id=17,
        source="prose",
        title=title,
        split="heldout",
        seq=2,
        start=30,
        peak=0,
        tokens=tuple(tokens),
        token_ids=tuple(range(len(tokens))),
        values=tuple(float(i % 2 == 0) * 4 for i in range(len(tokens))),
    )


class Reader(HTMLParser):
    """What a browser would see: element names, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


@given(st.lists(st.one_of(st.text(), st.sampled_from(HOSTILE)), min_size=1, max_size=12), st.integers(0, 2**12))
def test_tokens_are_text_and_never_markup(tokens, mask):
    values = [float(mask >> i & 1) for i in range(len(tokens))]
    seen = Reader(token_html(tokens, values, 1.0))
    assert seen.names == {"span", "mark"} if any(values) else {"span"}
    assert seen.attributes <= {"class", "dir", "style", "title", "data-value", "aria-label"}


@given(st.lists(st.sampled_from(["<b>", "<|im_start|>", '"', "'", "&lt;", "a", "שלום", "👩‍👩‍👧", " word"]), max_size=9))
def test_tokens_survive_as_visible_text(tokens):
    assert Reader(token_html(tokens, [1.0] * len(tokens), 2.0)).text == "".join(tokens)


@given(st.text())
def test_titles_sources_and_explanations_are_text_and_never_markup(text):
    names = Reader(context_html(a_window(["x"], title=text), 4.0)).names
    assert names <= {"div", "span", "b", "mark"}
    card = feature_card_html(a_page(explanations=({**EXPLANATION, "text": text, "explainer": text},)), [])
    assert Reader(card.removeprefix(STYLE)).names <= {
        "div",
        "span",
        "b",
        "h3",
        "h4",
        "table",
        "tbody",
        "tr",
        "td",
        "code",
        "svg",
        "rect",
        "title",
    }


def test_a_card_has_a_bar_with_its_numbers_for_every_bin_with_tokens():
    drawn = histogram_svg(a_page(histogram=np.array([300, 1, 0, 1])))
    assert re.findall("<title>(.*?)</title>", drawn) == ["0 to 2: 300 tokens", "2 to 4: 1 tokens", "6 to 8: 1 tokens"]
    heights = [float(height) for height in re.findall(' height="([0-9.]+)"', drawn)]
    assert heights[0] == HISTOGRAM_HEIGHT > heights[1] == heights[2] > 0
    assert histogram_svg(a_page(histogram=np.zeros(4, np.int64))) == ""


def test_cards_are_not_typeset_as_formulas():
    assert {"tex2jax_ignore", "mathjax_ignore"} <= set(
        re.findall('<div class="(.*?)"', feature_card_html(a_page(), []))[0].split()
    )


@given(st.text())
def test_markdown_text_has_no_bare_mark_of_markdown(text):
    assert not re.search(r"(?<!\\)(?:\\\\)*[*_`$<\[:#|~]", markdown_text(text).replace("\\\\", ""))


def test_characters_that_reorder_text_are_named():
    assert escape("a\u202eb\x00") == "a[U+202E]b␀"


@pytest.mark.parametrize(
    ("token", "shown"),
    [("\n", "⏎"), ("\r\n", "⏎"), ("\t", "⇥"), ("   ", "···"), ("", "◌"), (" a b", " a b"), ("a\n", "a⏎")],
)
def test_whitespace_is_visible(token, shown):
    assert visible(token) == shown


def test_a_line_breaks_after_its_sign_only_when_asked():
    assert "⏎<br>" in token_html(["a\n", "b"], [1, 0], 1.0, breaks=True)
    assert "<br>" not in token_html(["a\n", "b"], [1, 0], 1.0)


def test_hover_tells_the_value_with_four_digits():
    html = token_html(["dog", "cat"], [1.23456, 0.0], 2.0)
    assert 'data-value="1.235"' in html
    assert 'title="1.235, 62% of max"' in html
    assert 'aria-label="dog: 1.235"' in html


def test_only_active_tokens_cost_markup():
    tokens, values = [" token"] * 128, [0.0] * 120 + [1.0] * 8
    html = token_html(tokens, values, 1.0)
    assert html.count("<mark") == 8
    assert len(html) < 2500


def test_a_stronger_activation_has_a_stronger_shade():
    alphas = [float(alpha) for alpha in re.findall(r",(0\.\d+)\)", token_html("abc", [1, 4, 9], 4.0))]
    assert alphas[0] < alphas[1] == alphas[2]


def test_a_context_says_where_it_is_from():
    text = Reader(context_html(a_window(["dog", " cat"]), 4.0)).text
    assert "prose · a title · document 17 · heldout · token 30" in text


def test_a_score_comes_with_interval_count_chance_and_null():
    text = Reader(explanations_html(a_page())).text
    assert "embedding score 0.80 (95% interval 0.70 to 0.90, n = 40)" in text
    assert "chance 0.5" in text
    assert "shuffled null 0.51 (95% interval 0.40 to 0.62, n = 40)" in text


def test_counted_explanations_are_not_taken_for_a_language_models():
    assert "not written by a language model" in explanations_html(a_page())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": ()}, "Not scored."),
        ({"explanations": ()}, "Not explained yet."),
        ({"scores": (SCORE,)}, "shuffled null not measured"),
        (
            {"scores": (SCORE | dict.fromkeys(("value", "ci_low", "ci_high")) | {"n_judged": 0, "n_unparsed": 12},)},
            "could not be told (0 judged, 12 unreadable)",
        ),
        ({"scores": (SCORE | {"n_docs_shared": 2},)}, "2 of them also seen by the explainer"),
    ],
)
def test_what_is_missing_is_said(changes, said):
    assert said in Reader(explanations_html(a_page(**changes))).text


def test_logits_are_listed_with_their_values():
    text = Reader(logits_html(a_page())).text
    assert "<b>+1.500" in text
    assert "⏎-0.500" in text


def test_a_card_stands_alone():
    page = static_page("<latent>", feature_card_html(a_page(), [a_window(["dog"]), a_window(["cat"], band="q1")]))
    assert not re.search(r"<script|src=|href=|url\(|@import", page)
    assert "<title>&lt;latent&gt;</title>" in page
    assert "q1 – band 1 of 1" in page


def test_a_dead_latent_has_a_card_and_a_figure():
    dead = a_page(statistics=dict.fromkeys(STATISTICS, 0), explanations=(), scores=(), promoted=())
    assert "Never fired on this text" in feature_card_html(dead, [])
    assert activation_histogram(dead).layout.annotations[0].text == "never fired on this text"


def test_the_histogram_points_out_a_marked_value():
    figure = activation_histogram(a_page(), 2.5)
    assert list(figure.data[0].y) == [3, 1, 0, 1]
    assert figure.layout.annotations[0].text == "your text: 2.5"
    assert figure.layout.shapes[0].x0 == 2.5


def test_the_density_figure_counts_every_latent_that_fired():
    figure = density_figure(pd.DataFrame({"density": [0.0, 1e-4, 1e-3, 0.5, 1.0]}))
    assert sum(figure.data[0].y) == 4
    assert density_figure(pd.DataFrame({"density": [0.0]})).layout.annotations[0].text.startswith("no latent")


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), (float("nan"), "–"), (0.000123456, "0.0001235")])
def test_no_number_is_a_dash_and_never_zero(value, shown):
    assert number(value) == shown
