"""Every page of the dashboard under Streamlit's AppTest, on the small workbench and with the tiny model."""

import os
import signal
import time

import pytest
from streamlit.testing.v1 import AppTest

from app.cards import steering_html
from app.web import state
from app.workbench import Workbench

TIMEOUT = 60


@pytest.fixture(scope="module", autouse=True)
def _one_worker():
    # One thread, as here: sums of another number of threads differ in the last bit.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    state._worker.clear()


def html(at: AppTest) -> str:
    """All raw HTML of the page."""
    return "\n".join(element.proto.body for element in at.get("html"))


def metrics(at: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in at.metric}


def click(at: AppTest, label: str) -> AppTest:
    return next(button for button in at.button if button.label == label).click().run()


def steer(at: AppTest, prompt: str = "Ahoy", **settings: float) -> AppTest:
    at.text_area(key="steer_prompt").set_value(prompt)
    at.checkbox(key="steer_chat").uncheck()
    for name, value in {"tokens": 8, **settings}.items():
        at.number_input(key=f"steer_{name}").set_value(value)
    return click(at, "Generate both")


def until(at: AppTest, condition) -> AppTest:
    """Look again, as the page does by itself, until something is there."""
    deadline = time.monotonic() + TIMEOUT
    while not condition(at):
        assert time.monotonic() < deadline, html(at)
        assert not at.exception
        time.sleep(0.02)
        at.run()
    return at


def is_written(at: AppTest) -> bool:
    return not [button for button in at.button if button.label == "Stop"]


def kill_worker() -> int:
    worker = state.worker()
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + TIMEOUT
    while worker.pid is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return pid


def test_home_says_what_the_index_is(dashboard, fixture_index):
    at = dashboard("home")
    assert not at.exception
    shown = metrics(at)
    assert shown["FVU, normal tokens"] == "0.214"
    assert shown["Loss recovered"] == "too few tokens"
    assert (shown["Alive"], shown["Explained"], shown["Scored"]) == ("28", "4", "1")
    assert fixture_index.HOOK_POINT in html(at)


def test_home_without_explanations(dashboard, fixture_index, tmp_path):
    fixture_index.build_workbench(tmp_path, explained=False)
    at = dashboard("home", tmp_path)
    assert not at.exception
    assert metrics(at)["Explained"] == "0"


def test_a_missing_index_is_one_line_and_no_traceback(dashboard, tmp_path):
    at = dashboard("features", tmp_path)
    assert not at.exception
    assert "no finished index run" in at.error[0].value


def test_features_are_the_alive_ones_the_scored_first(dashboard, fixture_index):
    rows = dashboard("features").dataframe[0].value
    assert len(rows) == fixture_index.D_SAE - len(fixture_index.DEAD)
    assert rows["latent"].iloc[0] == fixture_index.SCORED
    assert rows["score"].notna().tolist() == sorted(rows["score"].notna(), reverse=True)


def test_features_are_sorted_as_asked(dashboard):
    rows = dashboard("features", sort="density").dataframe[0].value
    assert rows["density"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("query", "latents"),
    [
        ({"q": "BOATS"}, {3}),
        ({"q": "word12"}, {12}),
        ({"scored": "true"}, {3}),
        ({"explained": "true"}, {3, 4, 5, 6}),
        ({"q": "%"}, {9}),
        ({"q": "javascript:alert", "sort": "latent"}, {6}),
    ],
)
def test_features_are_filtered_by_the_url(dashboard, query, latents):
    at = dashboard("features", **query)
    assert not at.exception
    assert set(at.dataframe[0].value["latent"]) == latents


def test_what_is_typed_is_never_sql(dashboard):
    at = dashboard("features", q="' OR 1=1 --")
    assert not at.exception
    assert at.info[0].value == "No latent passes these filters."


def test_density_bounds_and_the_dead(dashboard, fixture_index):
    at = dashboard("features")
    at.checkbox(key="alive").uncheck()
    at.number_input(key="to").set_value(0.0).run()
    assert set(at.dataframe[0].value["latent"]) == set(fixture_index.DEAD)


def test_a_score_in_the_table_has_all_that_belongs_to_it(dashboard):
    row = dashboard("features", scored="true").dataframe[0].value.iloc[0]
    assert (row["score"], row["interval"], row["n_judged"], row["chance"], row["null_score"]) == (
        pytest.approx(0.83),
        "0.71 to 0.93",
        40,
        0.5,
        pytest.approx(0.52),
    )


def test_a_clicked_cell_opens_its_feature(dashboard):
    at = dashboard("features", q="BOATS")
    key = at.dataframe[0].proto.id.split("-", 2)[2]
    at.session_state[key] = {"selection": {"rows": [], "columns": [], "cells": [[0, "explanation"]]}}
    at.run()
    assert at.title[0].value == "Latent 3"


def test_every_latent_has_a_page(dashboard, fixture_index):
    at = dashboard("feature")
    for latent in range(fixture_index.D_SAE):
        at.number_input(key="latent").set_value(latent).run()
        assert not at.exception, latent
        assert not at.error, latent
        assert at.title[0].value == f"Latent {latent}"
        assert "<script" not in html(at)


def test_a_scored_feature_shows_its_score_in_full(dashboard, fixture_index):
    shown = html(dashboard("feature", latent=str(fixture_index.SCORED)))
    assert "95% interval 0.71 to 0.93, n = 40" in shown
    assert "not written by a language model" in shown
    assert "&lt;|im_start|&gt;" in shown


@pytest.mark.parametrize(
    ("state_name", "said"),
    [("UNJUDGED", "could not be told (0 judged, 12 unreadable)"), ("UNSCORED", "Not scored.")],
)
def test_an_unscored_feature_says_so(dashboard, fixture_index, state_name, said):
    assert said in html(dashboard("feature", latent=str(getattr(fixture_index, state_name))))


def test_a_dead_feature_says_so(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.DEAD[0]))
    assert "never fired on this text" in at.info[0].value
    assert not [button for button in at.button if button.label == "Generate both"]


@pytest.mark.parametrize("asked", ["999", "abc", "-1"])
def test_a_latent_that_is_not_there_is_said(dashboard, asked):
    at = dashboard("feature", latent=asked)
    assert not at.exception
    assert "There is no latent" in at.warning[0].value


def test_next_and_previous_move_by_one(dashboard):
    at = click(dashboard("feature", latent="5"), "Next")
    assert at.title[0].value == "Latent 6"
    assert click(at, "Previous").title[0].value == "Latent 5"


def test_random_opens_an_alive_latent(dashboard, fixture_index):
    at = click(dashboard("feature"), "Random alive")
    assert not at.exception
    assert at.number_input(key="latent").value not in fixture_index.DEAD


def test_a_tested_text_is_shown_and_outlives_the_next_latent(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED))
    at.text_area[0].set_value("Ahoy <b>")
    click(at, "Run")
    assert not at.exception
    assert any(caption.value.startswith("Active on") for caption in at.caption)
    click(at, "Next")
    assert any(caption.value.startswith("Active on") for caption in at.caption)


def test_a_text_too_long_for_the_model_is_one_line(dashboard):
    at = dashboard("feature", latent="3")
    at.text_area[0].set_value("a" * 1000)
    click(at, "Run")
    assert not at.exception
    assert "shorten it" in at.error[0].value


def test_steering_shows_both_texts_and_what_was_clamped(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED))
    at.slider(key="steer_strength").set_value(3.0)
    until(steer(at), is_written)
    assert not at.exception
    assert f"latent {fixture_index.SCORED} clamped to" in html(at)
    assert not at.markdown, "Streamlit shows values that stand alone in a page's code"
    click(at, "Next")
    assert "clamped to" not in html(at), "another latent's steering is not shown"


def test_the_texts_shown_are_those_of_the_workbench(dashboard, fixture_index, runs_root):
    at = dashboard("feature", latent=str(fixture_index.SCORED))
    until(steer(at, seed=4, temperature=0.0), is_written)
    asked = {"n_tokens": 8, "seed": 4, "temperature": 0.0, "chat": False}
    found = Workbench.open(runs_root).steer("Ahoy", fixture_index.SCORED, **asked)
    assert steering_html(found).split("<details>")[0] in html(at)


def test_a_text_is_shown_while_it_is_written_and_stopped_in_the_middle(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED))
    state.worker().inspect("Ahoy").result(TIMEOUT)
    pid = state.worker().pid
    assert pid is not None
    # Held, so that it is for this test to say how far it has come.
    os.kill(pid, signal.SIGSTOP)
    steer(at)
    assert any(caption.value.startswith("Waiting for its turn") for caption in at.caption)
    _, job = at.session_state["steering"]
    job.take({"kind": "started"})
    assert any(caption.value == state.MODEL_SPINNER for caption in at.run().caption)
    job.take({"kind": "token", "side": "clean", "text": " <b>*a*"})
    assert '<div class="ms-text"> &lt;b&gt;*a*</div>' in html(at.run())
    click(at, "Stop")
    os.kill(pid, signal.SIGCONT)
    assert is_written(at)
    assert not at.exception
    assert "stopped after 1 clean and 0 steered tokens" in at.info[-1].value
    assert '<div class="ms-text"> &lt;b&gt;*a*</div>' in html(at)
    until(steer(at), is_written)
    assert "clamped to" in html(at)
    assert state.worker().pid == pid


def test_sessions_share_one_worker_and_each_sees_its_own(dashboard, fixture_index, runs_root):
    sessions = [dashboard("feature", latent=str(fixture_index.SCORED)) for _ in range(2)]
    for seed, at in enumerate(sessions):
        steer(at, seed=seed, tokens=30)
    pid = state.worker().pid
    bench = Workbench.open(runs_root)
    for seed, at in enumerate(sessions):
        until(at, is_written)
        found = bench.steer("Ahoy", fixture_index.SCORED, n_tokens=30, seed=seed, chat=False)
        assert steering_html(found).split("<details>")[0] in html(at)
    assert state.worker().pid == pid


def test_a_refusal_is_one_line(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED))
    until(steer(at, "a" * 1000), is_written)
    assert "shorten one of them" in at.error[0].value
    assert not at.exception


def test_a_worker_that_died_is_said_and_the_next_text_comes_from_a_new_one(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED))
    for _ in range(20):
        state.worker().steer("Ahoy", fixture_index.SCORED, n_tokens=40, chat=False)
    steer(at)
    pid = kill_worker()
    until(at, is_written)
    assert "was killed" in at.error[0].value
    assert "which starts a new one" in at.error[0].value
    until(steer(at), is_written)
    assert not at.error
    assert "clamped to" in html(at)
    assert "a new one was started" in at.info[0].value
    assert state.worker().pid != pid


def test_a_worker_that_died_while_it_waited_is_replaced_and_that_is_said(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED))
    at.text_area[0].set_value("Ahoy")
    click(at, "Run")
    kill_worker()
    click(at, "Run")
    assert not at.error
    assert "was killed" in at.info[0].value
    assert any(caption.value.startswith("Active on") for caption in at.caption)


def test_the_server_has_no_model_of_its_own(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED))
    at.text_area[0].set_value("Ahoy")
    until(steer(click(at, "Run")), is_written)
    assert "_subject" not in vars(state.workbench())


@pytest.mark.parametrize("index", ["../../etc", "/tmp", "a" * 300, "<script>", "no such"])
def test_an_address_names_an_index_by_its_id_and_no_path(dashboard, index):
    for page in ("home", "features", "feature", "prompt"):
        at = dashboard(page, index=index)
        assert not at.exception
        said = " ".join(element.value for element in (*at.error, *at.warning))
        assert "is no id of an index" in said, page


def test_an_index_that_there_is_not_is_one_line(dashboard):
    at = dashboard("features", index="abcdef123456")
    assert not at.exception
    assert "no finished index run" in at.error[0].value


@pytest.mark.parametrize("page", ["feature", "prompt", "steering"])
def test_a_number_of_thousands_of_digits_is_one_line(dashboard, page):
    at = dashboard(page, latent="9" * 5000, latents="9" * 5000, pos="9" * 5000)
    assert not at.exception


def test_what_was_read_with_one_dictionary_is_not_shown_of_another(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED))
    next(box for box in at.text_area if box.label == "Text to run through the model").set_value("Ahoy")
    at = click(at, "Run")
    assert "Active on" in " ".join(each.value for each in at.caption)
    at.session_state["inspection"] = ("another", at.session_state["inspection"][1])
    at.run()
    assert "Active on" not in " ".join(each.value for each in at.caption)
