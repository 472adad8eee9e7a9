"""The Prompt lab under Streamlit's AppTest, on the small workbench and with the tiny model."""

import time
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.cards_prompt import SHADES, shaded_html
from app.web import navigation, state
from app.workbench import Workbench

TIMEOUT = 60
TEXT = "Ahoy <b>, the harbour"
A = "the ship\nthe sail\nthe mast\nthe deck"
B = "def f(x)\nreturn x\nimport os\nfor i in x"


@pytest.fixture(scope="module", autouse=True)
def _one_worker():
    # One thread, as here: sums of another number of threads differ in the last bit.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    state._worker.clear()


@pytest.fixture(scope="module")
def bench(runs_root) -> Workbench:
    return Workbench.open(runs_root)


@pytest.fixture(scope="module")
def inspection(bench):
    return bench.inspect(TEXT)


def html(at: AppTest) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def captions(at: AppTest) -> str:
    return "\n".join(caption.value for caption in at.caption)


def said_of(elements) -> str:
    """What errors or warnings say, without the signs that keep Markdown off it."""
    return "\n".join(each.value for each in elements).replace("\\", "").replace("\u2060", "")


def click(at: AppTest, label: str) -> AppTest:
    return settled(next(button for button in at.button if button.label == label).click().run())


def settled(at: AppTest) -> AppTest:
    """Look again, as the page does by itself, until nothing runs."""
    deadline = time.monotonic() + TIMEOUT
    while [button for button in at.button if button.label == "Stop"]:
        assert time.monotonic() < deadline, captions(at)
        time.sleep(0.02)
        at.run()
    assert not at.exception
    return at


def table(at: AppTest, column: str) -> pd.DataFrame:
    return next(frame.value for frame in at.dataframe if column in frame.value)


def pick(at: AppTest, name: str, row: int) -> AppTest:
    key = at.session_state[f"{name} shown"][0]
    at.session_state[key] = {"selection": {"rows": [row], "columns": [], "cells": []}}
    return settled(at.run())


def test_without_a_text_it_says_what_to_do(dashboard):
    at = dashboard("prompt")
    assert not at.exception
    assert "Type or paste a text" in captions(at)


def test_a_text_in_the_url_is_read_and_its_tokens_have_the_workbenchs_figures(dashboard, inspection):
    at = settled(dashboard("prompt", text=TEXT))
    shown = table(at, "loss")
    assert len(shown) == len(inspection.tokens)
    np.testing.assert_array_equal(shown["loss"].astype(float), inspection.loss)
    np.testing.assert_array_equal(shown["error"].astype(float), inspection.error)
    assert shown["n_active"].tolist() == np.bincount(inspection.pos, minlength=len(shown)).tolist()
    assert f"{len(inspection.tokens)} tokens" in captions(at)


def test_latents_are_ranked_by_their_own_quantile_or_by_value(dashboard, inspection):
    by_quantile = table(settled(dashboard("prompt", text=TEXT)), "quantile")
    assert (np.diff(by_quantile["quantile"].dropna().to_numpy()) <= 0).all()
    assert by_quantile["density"].to_numpy().max() <= 0.1
    by_value = table(settled(dashboard("prompt", text=TEXT, by="activation", dense="1")), "quantile")
    assert by_value["latent"].tolist() == inspection.top(None)["latent"].tolist()


def test_one_tokens_latents_are_its_own(dashboard, inspection):
    at = settled(dashboard("prompt", text=TEXT, pos="3", dense="1"))
    found = table(at, "quantile")
    assert set(found["latent"]) == set(inspection.at(3)["latent"])
    assert "Latents on token 3" in captions(at)


@pytest.mark.parametrize("shade", list(SHADES))
def test_the_text_is_shaded_by_a_figure(dashboard, inspection, shade):
    at = settled(dashboard("prompt", text=TEXT, shade=shade))
    assert shaded_html(inspection, SHADES[shade]) in html(at)
    assert "<b>" not in html(at)


def test_a_click_on_a_token_and_on_a_latent_changes_what_is_looked_at(dashboard, inspection):
    at = pick(settled(dashboard("prompt", text=TEXT, dense="1")), "tokens", 4)
    assert at.number_input(key="pos").value == 4
    listed = table(at, "quantile")["latent"].tolist()
    at = pick(at, "latents", 1)
    assert at.number_input(key="latent").value == listed[1]
    assert f"Latent {listed[1]}:" in said_of(at.markdown)
    # What is typed afterwards counts, though the row is still picked.
    at.number_input(key="pos").set_value(5).run()
    assert settled(at).number_input(key="pos").value == 5


def test_effects_are_those_of_the_workbench_and_named_plainly(dashboard, bench, inspection):
    latent = inspection.at(4, 1)["latent"].tolist()[0]
    at = click(settled(dashboard("prompt", text=TEXT, pos="4", latent=str(latent))), "Measure")
    found = bench.effects(TEXT, latent, 4)
    shown = html(at)
    assert "Full ablation effect" in shown
    assert f"set to 0 on token {4} alone" in shown
    assert "Direct effect" in shown
    assert f"{found.full.loss:+.4f}" in shown
    assert f"{found.direct.loss:+.4f}" in shown
    assert f"adds {found.logit:+.3f} to the logit" in shown


def test_everywhere_and_another_next_token_are_in_the_url(dashboard, bench, inspection):
    latent = inspection.at(4, 1)["latent"].tolist()[0]
    asked = {"text": TEXT, "pos": "4", "latent": str(latent), "where": "every token", "next": "z"}
    at = click(settled(dashboard("prompt", **asked)), "Measure")
    found = bench.effects(TEXT, latent, 4, everywhere=True, target="z")
    assert "on every token" in html(at)
    assert f"{found.full.loss:+.4f}" in html(at)
    assert "<code>z</code>" in html(at)


def test_a_next_token_that_is_none_is_one_line(dashboard):
    at = click(settled(dashboard("prompt", text=TEXT, pos="4", latent="3", next="several words")), "Measure")
    assert "and one is asked for" in said_of(at.error)


def test_a_text_longer_than_the_context_says_how_many_tokens_it_has_and_how_many_fit(dashboard):
    at = settled(dashboard("prompt", text="a" * 1000))
    assert "has 1001 tokens, the model reads 512" in said_of(at.error)


def test_a_model_without_a_chat_template_says_so(dashboard):
    at = settled(dashboard("prompt", text=TEXT, chat="true"))
    assert "no chat template" in said_of(at.error)


@pytest.mark.parametrize(
    ("query", "said"),
    [({"pos": "999"}, "There is no token 999"), ({"pos": "x"}, "no token x"), ({"latent": "-4"}, "no latent")],
)
def test_nonsense_in_the_url_is_one_line_and_the_page_works(dashboard, query, said):
    at = settled(dashboard("prompt", text=TEXT, shade="nothing", by="luck", **query))
    assert said in said_of(at.warning)
    assert len(table(at, "loss"))


def test_steering_is_linked_where_there_is_such_a_page(dashboard, monkeypatch):
    at = settled(dashboard("prompt", text=TEXT, latent="3"))
    links = {link.proto.label: link.proto for link in at.get("page_link")}
    assert "latent=3" in links["Open the feature"].query_string
    if "steering" in navigation.SCREENS:
        query = unquote(links["Steer from here"].query_string.replace("+", " "))
        assert "latents=3" in query
        assert f"prompt={TEXT}" in query
    else:
        assert "Steer from here" not in links


def test_what_was_run_here_is_shown_on_the_features_page(dashboard):
    at = settled(dashboard("prompt", text=TEXT))
    at.switch_page(str(navigation.file_of("feature"))).run()
    assert at.text_area[0].value == TEXT
    assert any(caption.value.startswith("Active on") for caption in at.caption)


def test_two_sides_are_contrasted_with_held_out_figures(dashboard, bench):
    at = settled(dashboard("prompt", mode="two sides", a=A, b=B))
    found = bench.contrast(A.splitlines(), B.splitlines())
    tables = [frame.value for frame in at.dataframe]
    for shown, more_in_a in zip(tables, (True, False), strict=True):
        expected = found.ranked("frequency", more_in_a=more_in_a, n=30)
        assert shown["latent"].tolist() == expected["latent"].tolist()
        assert shown["held"].notna().to_numpy().all()
    assert "4 texts" in captions(at)
    assert "held out" in captions(at)


def test_two_single_texts_say_that_nothing_is_held_out(dashboard):
    at = settled(dashboard("prompt", mode="two sides", a="the ship", b="def f(x)", rank="activation"))
    assert "none is left to judge on" in captions(at)
    assert len(at.dataframe) == 2


@pytest.mark.parametrize(
    ("a", "said"),
    [("return x", "is in A and in B"), ("x\n" * 3 + "\n".join(map(str, range(80))), "more than 64 lines")],
)
def test_sides_that_cannot_be_compared_are_one_line(dashboard, a, said):
    at = settled(dashboard("prompt", mode="two sides", a=a, b=B))
    assert said in said_of(at.error)


def test_the_server_has_no_model_of_its_own(dashboard):
    settled(dashboard("prompt", text=TEXT))
    assert "_subject" not in vars(state.workbench())
