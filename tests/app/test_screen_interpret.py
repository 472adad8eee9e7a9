"""The page Interpret: start and watch jobs, read what came of them, agreement, and blind rating."""

import os
import shutil
import time
from pathlib import Path

import pytest

from app import jobs
from app.web.navigation import file_of
from autointerp.confusion import confusions
from autointerp.rating_sheets import make_sheet, sheet_of
from autointerp.ratings import SheetConfig
from autointerp.reporting import subject
from store.feature_index import FeatureIndex
from store.notes import Notes
from store.run import find_run, list_runs

TIMEOUT = 120


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    """Runs of the tiny demo, which may be written."""
    shutil.copytree(tiny_root, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def judged(tiny_root: Path, tmp_path_factory) -> Path:
    """The same with the scores of two judges, which are only read."""
    from app.cli import main

    where = tmp_path_factory.mktemp("judged") / "runs"
    shutil.copytree(tiny_root, where)
    words = "interpret --n-latents 6 --explainer default --scorers detection fuzzing --embedder hashed --n-score 10"
    assert main([*words.split(), "--root", str(where)]) == 0
    return where


def said(at) -> str:
    kinds = (at.caption, at.markdown, at.info, at.warning, at.error, at.success, at.subheader)
    return "\n".join(element.value for kind in kinds for element in kind)


def html(at) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def click(at, label: str):
    return next(button for button in at.button if button.label == label).click().run()


def command(at) -> str:
    return at.code[0].value


def until(at, root: Path, *states: str) -> jobs.Job:
    deadline = time.monotonic() + TIMEOUT
    while (found := jobs.jobs(root)[0]).state not in states:
        assert time.monotonic() < deadline, found.tail()
        assert not at.exception
        time.sleep(0.2)
    at.run()
    assert not at.exception
    return found


def test_the_command_is_shown_before_it_is_started(dashboard, root):
    at = dashboard("interpret", root, view="Start")
    assert not at.exception
    index = find_run(root, "latest", "index").id
    assert command(at).startswith(f"monosem interpret --root {root} --index-run {index} --n-latents 30")
    assert "--explainer tokens" in command(at)
    assert "--nulls" not in command(at), "what the command does anyway is not said"
    assert "No language model is asked" in said(at)
    assert not (root / jobs.FOLDER).exists(), "nothing is started by looking"


def test_what_is_chosen_is_in_the_command(dashboard, root):
    at = dashboard("interpret", root, view="Start", explainer="default", n="7")
    at.selectbox(key="embedder").set_value("hashed").run()
    at.multiselect(key="scorers").set_value(["detection", "fuzzing"]).run()
    assert "--n-latents 7 --explainer default --embedder hashed" in command(at)
    assert "--scorers detection fuzzing" in command(at)
    assert "--backend scripted" in command(at)


def test_a_job_is_forecast_started_watched_and_its_results_are_there(dashboard, root):
    at = dashboard("interpret", root, view="Start", n="3", explainer="default", embedder="hashed")
    at.multiselect(key="scorers").set_value(["detection"]).run()
    click(at, "Forecast")
    assert until(at, root, "finished", "failed").state == "finished"
    forecast = next(code.value for code in at.code if code.value.startswith("dry run with scripted"))
    assert "score with detection" in forecast
    before = len(list_runs(root, "scores"))
    click(at, "Start")
    done = until(at, root, "finished", "failed")
    assert done.state == "finished", done.tail()
    assert "✓ finished" in said(at)
    assert len(list_runs(root, "scores")) == before + 1
    at.segmented_control(key="view").set_value("Results").run()
    rows = at.dataframe[0].value
    assert rows["scorer"].iloc[0] == "detection"
    assert rows["calls"].iloc[0] > 0
    assert "Language models today" in said(at)


def test_a_failed_job_says_why_and_goes_on(dashboard, root):
    at = dashboard("interpret", root, view="Start", which="List", latents="0 1")
    (root / "index").rename(root / "gone")
    folder = jobs.start(root, ["interpret", "--root", str(root), "--index-run", "0" * 16]).folder
    until(at, root, "failed")
    (root / "gone").rename(root / "index")
    at.run()
    assert "no finished index run" in said(at)
    click(at, "Go on")
    assert jobs.jobs(root)[0].goes_on_from == folder.name
    until(at, root, "failed")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"which": "List", "latents": "3 x"}, "is no latent"),
        ({"which": "List", "latents": "999999"}, "there is no latent 999999"),
        ({"which": "List", "latents": ""}, "no latent is listed"),
        ({"which": "Condition", "where": ""}, "there is no condition"),
        ({"which": "Condition", "where": "no_such_column > 1"}, "no\\_such\\_column"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_nothing_is_started(dashboard, root, query, says):
    at = dashboard("interpret", root, view="Start", **query)
    assert not at.exception
    assert says in at.error[0].value
    assert not [button for button in at.button if button.label == "Start"]


def test_a_condition_says_how_many_latents_it_names(dashboard, root):
    at = dashboard("interpret", root, view="Start", which="Condition", where="latent < 5")
    assert "5 of " in said(at)
    assert "'SELECT latent FROM features WHERE latent < 5'" in command(at)


def test_nonsense_in_the_url_is_no_traceback(dashboard, root):
    junk = {"view": "<b>", "which": "x", "explainer": "nobody", "backend": "none", "n": "-4", "scorers": "a,b"}
    at = dashboard("interpret", root, **junk)
    assert not at.exception
    assert not dashboard("interpret", root, view="Start", **{k: v for k, v in junk.items() if k != "view"}).exception


def test_keys_are_never_shown(dashboard, root, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    at = dashboard("interpret", root, view="Start", explainer="default", backend="openai_batch")
    assert "`OPENAI_API_KEY` is set" in said(at)
    assert "`MONOSEM_LLM_KEY` is not set" in said(at)
    assert "very-secret" not in str(at)
    assert "very-secret" not in command(at)


def test_dollars_without_a_price_are_refused_before_anything_starts(dashboard, root):
    at = dashboard("interpret", root, view="Start", explainer="default", backend="anthropic_api")
    at.number_input(key="cap_usd").set_value(1.0).run()
    assert "price is not known" in at.error[0].value
    at.number_input(key="price_in").set_value(1.0)
    at.number_input(key="price_out").set_value(5.0).run()
    assert not at.error
    assert "--max-usd-per-job 1.0" in command(at)


def test_read_only_starts_nothing_and_rates_nothing(dashboard, judged, monkeypatch):
    monkeypatch.setenv("MONOSEM_READ_ONLY", "1")
    for view in ("Start", "Rate"):
        at = dashboard("interpret", judged, view=view)
        assert not at.exception
        assert "read-only" in at.info[0].value
        assert not [button for button in at.button if button.label in ("Start", "Forecast", "Make the sheet")]
    assert not dashboard("interpret", judged).exception


def test_results_have_scores_intervals_nulls_and_n(dashboard, judged):
    at = dashboard("interpret", judged)
    assert not at.exception
    rows = at.dataframe[0].value
    row = rows.loc[rows["scorer"] == "detection"].iloc[0]
    assert 0 <= row["mean"] <= 1
    assert " to " in row["mean_95"]
    assert " to " in row["above_95"]
    assert row["n"] > 0
    assert "Score minus null" in said(at)
    assert "What became of every latent" in [each.label for each in at.expander]
    assert at.get("plotly_chart")
    calls = int(rows["calls"].sum())
    assert f" {calls} answered" in said(at)


def test_the_explanations_in_the_url_are_reported(dashboard, judged):
    older = list_runs(judged, "explanations")[0]
    at = dashboard("interpret", judged, explanations=older.id)
    assert f"Interpretation by {older.config['explainer']}" in said(at)
    at = dashboard("interpret", judged, explanations="<b>none</b>")
    assert not at.exception
    assert "There are no explanations" in at.warning[0].value


def test_what_was_clicked_stays_when_another_interpretation_finishes(dashboard, judged, tmp_path):
    root = shutil.copytree(judged, tmp_path / "runs")
    older, newer = list_runs(root, "explanations")[-2:]
    late = [newer, *(run for run in list_runs(root, "scores") if run.inputs["explanations"] == newer.id)]
    for run in late:
        run.folder.rename(tmp_path / run.id)
    at = dashboard("interpret", root)
    table = at.dataframe[0]
    at.session_state[table.proto.id.split("-", 2)[2]] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    clicked = table.value["explanations"].iloc[0]
    assert at.run().query_params["explanations"] == clicked
    for run in late:
        (tmp_path / run.id).rename(run.folder)
    at.run()
    assert at.dataframe[0].value["explanations"].iloc[0] == newer.id
    assert at.query_params["explanations"] == clicked
    assert f"Interpretation by {older.config['explainer']}" in said(at)


def test_some_latents_of_a_report_open_when_clicked(dashboard, judged):
    at = dashboard("interpret", judged)
    table = next(frame for frame in at.dataframe if "gain" in frame.value)
    at.session_state[table.proto.id.split("-", 2)[2]] = {"selection": {"rows": [1], "columns": [], "cells": []}}
    assert at.run().title[0].value == f"Latent {table.value['latent'].iloc[1]}"


def test_interpretations_of_another_version_are_listed_and_not_fatal(dashboard):
    at = dashboard("interpret")
    assert not at.exception
    assert len(at.dataframe[0].value) == 1
    assert not dashboard("interpret", view="Agreement").exception


def test_agreement_has_intervals_and_what_judges_got_wrong(dashboard, judged):
    at = dashboard("interpret", judged, view="Agreement")
    assert not at.exception
    shown = html(at)
    assert "detection and fuzzing" in shown
    assert "said yes where it fires" in shown
    assert "Nobody has rated" in said(at)


def test_yes_and_no_are_counted_as_the_examples_have_them(judged):
    index = FeatureIndex(find_run(judged, "latest", "index").folder)
    of = subject(index)
    for each in confusions(index, of):
        query = "SELECT truth, answer FROM examples WHERE run = ? AND arm = 'explanation'"
        rows = index.sql(query, [each.run])
        right = {(1, 1): each.hits, (1, 0): each.misses, (0, 1): each.false_alarms, (0, 0): each.rejections}
        for (truth, answer), n in right.items():
            assert ((rows["truth"] == truth) & (rows["answer"] == answer)).sum() == n
        assert each.sensitivity.n + each.specificity.n + each.n_unread == len(rows)
        low, high = each.specificity.interval or (0, 0)
        assert low < (each.specificity.value or 0) < high


def sheet_for(root: Path, n: int = 4):
    run = find_run(root, "latest", "explanations")
    return make_sheet(SheetConfig(n=n, share_null=0.25), [run], root)


def test_a_sheet_is_made_and_opened(dashboard, root):
    at = dashboard("interpret", root, view="Rate")
    at.text_input(key="rater").set_value("ada").run()
    at.number_input[0].set_value(4)
    click(at, "Make the sheet")
    assert not at.exception
    assert len(list_runs(root, "sheet")) == 1
    assert "0 of 4 rated" in at.get("progress")[0].proto.text


def rate_page(at):
    at.switch_page(str(file_of("interpret")))
    at.query_params["view"] = "Rate"
    return at.run()


def test_a_name_that_was_given_elsewhere_rates_too(dashboard, root):
    at = dashboard("features", root)
    rate_page(at)
    assert [box.label for box in at.text_input] == ["Your name"], "to have looked at a page is not to have a name"
    at.switch_page(str(file_of("features"))).run()
    at.text_input(key="author bulk").set_value("ada").run()
    rate_page(at)
    assert "You rate as **ada**" in said(at)
    assert not [box for box in at.text_input if box.label == "Your name"]


def test_a_name_that_rates_is_in_every_box_until_it_is_taken_back(dashboard, root):
    at = dashboard("interpret", root, view="Rate")
    at.text_input(key="rater").set_value(" ada ").run()
    at.switch_page(str(file_of("features"))).run()
    assert at.text_input(key="author bulk").value == "ada"
    click(rate_page(at), "Somebody else")
    assert at.text_input(key="rater").value == ""


def test_rating_is_blind_until_the_sheet_is_done(dashboard, root):
    run = sheet_for(root)
    sheet = sheet_of(run)
    sae = find_run(root, "latest", "sae").id
    at = dashboard("interpret", root, view="Rate", sheet=run.id)
    assert "Say who you are" in at.info[0].value
    at.text_input(key="rater").set_value("ada").run()
    for item in sheet.items[:-1]:
        shown = html(at) + said(at)
        assert item.explainer not in shown
        assert "of another" not in html(at)
        assert "Spearman" not in shown
        assert f"latent {item.latent}" not in shown
        click(at, "Fits well")
    assert [each.value for each in Notes(root).blind_ratings(sae)] == [4] * (len(sheet.items) - 1)
    assert sheet.items[-1].explainer not in html(at)
    click(at, "Skip")
    assert "This sheet is done" in said(at)
    assert sheet.items[0].explainer in html(at)
    assert "of another" in html(at)
    assert "skipped" in html(at)
    assert len(Notes(root).blind_ratings(sae)) == len(sheet.items) - 1, "what is skipped is no rating"
    click(at, "Rate those that were skipped")
    click(at, "Does not fit")
    assert len(Notes(root).blind_ratings(sae)) == len(sheet.items)


def test_a_rating_can_be_given_again_and_the_newer_counts(dashboard, root):
    run = sheet_for(root)
    sae = find_run(root, "latest", "sae").id
    at = dashboard("interpret", root, view="Rate", sheet=run.id)
    at.text_input(key="rater").set_value("ada").run()
    click(at, "Fits exactly")
    click(at, "Back to the last one")
    click(at, "Fits badly")
    assert [each.value for each in Notes(root).blind_ratings(sae)] == [2]
    assert "1 of 4 rated" in at.get("progress")[0].proto.text


def test_two_raters_agree_or_not_with_an_interval(dashboard, root):
    run = sheet_for(root, 8)
    sheet, sae = sheet_of(run), find_run(root, "latest", "sae").id
    for author, shift in (("ada", 0), ("ben", 1)):
        for place in range(len(sheet.items)):
            sheet.rate(Notes(root), sae, place, (place + shift) % 5 + 1, author)
    at = dashboard("interpret", root, view="Rate", sheet=run.id)
    at.text_input(key="rater").set_value("ada").run()
    assert "weighted kappa" in html(at)
    at.segmented_control(key="view").set_value("Agreement").run()
    assert "ada, ben" in html(at)
    assert "2 people" in said(at)


def test_what_people_said_is_not_told_in_the_middle_of_a_sheet(dashboard, root):
    run = sheet_for(root)
    sheet, sae = sheet_of(run), find_run(root, "latest", "sae").id
    sheet.rate(Notes(root), sae, 0, 3, "ben")
    at = dashboard("interpret", root, view="Rate", sheet=run.id)
    at.text_input(key="rater").set_value("ada").run()
    at.segmented_control(key="view").set_value("Agreement").run()
    assert not at.exception
    assert "when the sheet that you are rating is done" in said(at)


def test_hostile_texts_are_shown_and_nothing_else(runs_root, fixture_index):
    from app.cards_interpret import rated_html, table_html

    evil = "<script>window.pwned=1</script>"
    assert "<script" not in rated_html(evil, [f"«{evil}» x"])
    assert "<script" not in table_html((evil,), [[evil]])
    assert os.environ.get("MONOSEM_READ_ONLY") != "1"
