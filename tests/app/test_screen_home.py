"""The page Home: every run, every dictionary, what is in progress, and which index is looked at."""

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app import jobs
from app.progress_file import ProgressFile
from store.processes import began
from store.run import MANIFEST, find_run, list_runs, start_run


@pytest.fixture
def own(runs_root: Path, tmp_path: Path) -> Path:
    """The shared runs, to be written in."""
    shutil.copytree(runs_root, tmp_path / "runs")
    return tmp_path / "runs"


def frames(at) -> dict[str, object]:
    """The tables of the page by their first column."""
    return {frame.value.columns[0]: frame.value for frame in at.dataframe}


def said(at) -> str:
    """Every line of words."""
    return "\n".join(element.value for kind in (at.caption, at.markdown, at.info, at.warning) for element in kind)


def test_every_run_is_listed_the_newest_first(dashboard, runs_root):
    rows = frames(dashboard("home"))["kind"]
    assert set(rows["id"]) == {run.id for run in list_runs(runs_root)}
    assert rows["when"].is_monotonic_decreasing
    index = rows.set_index("kind").loc["index"]
    assert "sae " in index["inputs"]


def test_runs_are_filtered_by_the_url(dashboard):
    at = dashboard("home", kind="sae")
    assert set(frames(at)["kind"]["kind"]) == {"sae"}
    assert "1 finished run," in said(at)


def test_a_kind_that_there_is_none_of_shows_all(dashboard):
    at = dashboard("home", kind="no <b>such</b>")
    assert not at.exception
    assert len(set(frames(at)["kind"]["kind"])) > 1


def test_the_details_of_the_run_in_the_url_are_shown(dashboard, runs_root):
    run = find_run(runs_root, "latest", "sae")
    at = dashboard("home", run=run.id)
    assert any(
        json.loads(each.value).get("id") == run.id for each in at.json if isinstance(json.loads(each.value), dict)
    )


def pick(at, column: str, row: int):
    """Click a row of the table that has this first column."""
    key = next(frame for frame in at.dataframe if frame.value.columns[0] == column).proto.id.split("-", 2)[2]
    at.session_state[key] = {"selection": {"rows": [row], "columns": [], "cells": []}}
    return at.run()


def test_a_run_that_was_clicked_stays_when_another_finishes(dashboard, own):
    at = dashboard("home", own)
    clicked = frames(at)["kind"]["id"].iloc[1]
    assert pick(at, "kind", 1).query_params["run"] == clicked
    with start_run(own, "sae", {"hook_point": "x", "variant": "topk"}, {"activations": "0" * 16}) as run:
        run.finish({"d_sae": 8})
    at.run()
    assert frames(at)["kind"]["id"].iloc[0] == run.id
    assert at.query_params["run"] == clicked


def test_a_dictionary_that_is_clicked_has_its_index_looked_at(dashboard, own):
    at = pick(dashboard("home", own), "dictionary", 0)
    assert not at.exception
    assert at.query_params["index"] == find_run(own, "latest", "index").id


def test_a_run_that_is_not_there_is_said(dashboard):
    at = dashboard("home", run="<b>no</b>")
    assert not at.exception
    assert "There is no run" in at.warning[0].value


def test_every_dictionary_has_a_row_with_what_was_measured(dashboard, runs_root):
    row = frames(dashboard("home"))["dictionary"].iloc[0]
    assert row["dictionary"] == find_run(runs_root, "latest", "sae").id
    assert row["FVU, normal tokens"] == pytest.approx(0.2137)
    assert row["FVU, normal tokens 95%"] == "0.190 to 0.240"
    assert row["Loss recovered"] is None or row["Loss recovered"] != row["Loss recovered"], "not told is never 0"
    assert row["Dead latents"] == 2


def test_a_dictionary_without_evaluation_or_index_has_a_row_too(dashboard, own):
    with start_run(own, "sae", {"hook_point": "x", "variant": "topk"}, {"activations": "0" * 16}) as run:
        run.finish({"d_sae": 8})
    rows = frames(dashboard("home", own))["dictionary"].set_index("dictionary")
    assert rows.loc[run.id, "indexes"] == 0
    assert rows.loc[run.id, ["FVU, normal tokens", "L0", "Dead latents"]].isna().all()


def test_what_a_dictionary_lacks_is_a_click_away(dashboard, tiny_root, tmp_path, monkeypatch):
    root = tmp_path / "runs"
    for kind in ("activations", "sae"):
        shutil.copytree(tiny_root / kind, root / kind)
    sae = find_run(root, "latest", "sae").id
    monkeypatch.setenv("MONOSEM_READ_ONLY", "1")
    assert not [button for button in dashboard("home", root).button if sae[:8] in button.label]
    monkeypatch.setenv("MONOSEM_READ_ONLY", "0")
    at = dashboard("home", root)
    assert {button.label for button in at.button} >= {f"Evaluate {sae[:8]}", f"Index {sae[:8]}"}
    next(button for button in at.button if button.label.startswith("Index")).click().run()
    deadline = time.monotonic() + 120
    while (job := jobs.jobs(root)[0]).state in jobs.ALIVE:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert job.state == "finished", job.tail()
    at.run()
    assert not at.exception
    assert {metric.label for metric in at.metric} >= {"Alive"}


def test_no_runs_says_what_to_run(dashboard, tmp_path):
    at = dashboard("home", tmp_path)
    assert not at.exception
    assert not at.error
    for command in ("monosem demo --recipe tiny", "monosem demo --out", "monosem harvest"):
        assert command in at.info[0].value


def test_runs_without_an_index_say_how_to_make_one(dashboard, own):
    shutil.rmtree(own / "index")
    at = dashboard("home", own)
    assert not at.exception
    assert "monosem index" in at.info[0].value
    assert len(frames(at)["kind"]) > 2


def test_an_unreadable_run_is_named_and_all_else_is_shown(dashboard, own):
    broken = own / "sae" / "0123456789abcdef"
    broken.mkdir()
    (broken / MANIFEST).write_text("{ <b>")
    at = dashboard("home", own)
    assert not at.exception
    assert "0123456789abcdef" in at.warning[0].value
    assert {metric.label for metric in at.metric} >= {"Alive", "Explained"}


def test_a_damaged_evaluation_is_named_and_all_else_is_shown(dashboard, own):
    for file in own.glob("evaluation/*/figures.parquet"):
        file.write_bytes(b"damaged")
    at = dashboard("home", own)
    assert not at.exception
    assert any("damaged" in warning.value for warning in at.warning)
    assert len(frames(at)["kind"]) > 2


def test_an_index_without_its_model_shows_all(dashboard, own):
    for manifest in own.glob(f"activations/*/{MANIFEST}"):
        told = json.loads(manifest.read_text())
        told["config"]["harvest"]["model"] = "/no/such/model"
        manifest.write_text(json.dumps(told))
    at = dashboard("home", own)
    assert not at.exception
    assert not at.error
    assert {metric.label for metric in at.metric} >= {"FVU, normal tokens", "Alive"}
    assert len(frames(at)["kind"]) >= 4


def test_the_index_in_the_url_is_looked_at(dashboard, own, fixture_index):
    first = find_run(own, "latest", "index")
    told = json.loads((first.folder / MANIFEST).read_text())
    at = dashboard("home", own, index=first.id)
    assert at.selectbox(key="home_index").value == first.id
    assert told["id"] in at.selectbox(key="home_index").options[0]


@pytest.mark.parametrize(("index", "said"), [("abcdef12", "no finished index run"), ("nonsense", "is no id of an")])
def test_an_index_that_is_not_there_is_one_line_and_the_others_can_be_chosen(dashboard, runs_root, index, said):
    at = dashboard("home", index=index)
    assert not at.exception
    assert said in at.error[0].value
    at.selectbox(key="home_index").set_value(find_run(runs_root, "latest", "index").id).run()
    assert not at.error
    assert {metric.label for metric in at.metric} >= {"Alive", "Explained"}


def test_a_run_that_another_process_makes_is_in_progress(dashboard, own):
    with start_run(own, "sae", {"seed": 7}, {}) as run:
        at = dashboard("home", own)
        assert f"sae {run.id}" in said(at)
        assert "Started elsewhere" in said(at)
        assert not [button for button in at.button if button.label == "Stop"], "it is stopped where it was started"
    at = dashboard("home", own)
    assert "Nothing is in progress." in said(at)
    assert "1 begun and not finished" in [each.label for each in at.expander]


def test_jobs_in_progress_are_shown_and_stopped(dashboard, own, monkeypatch):
    folder = own / jobs.FOLDER / "20260101-000000-aaaa"
    folder.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as process:
        asked = {"argv": ["interpret", "--root", "x"], "started_at": datetime.now(UTC).isoformat()}
        (folder / jobs.ASKED).write_text(json.dumps(asked | {"node": os.uname().nodename}))
        (folder / jobs.PROCESS).write_text(json.dumps({"pid": process.pid, "began": began(process.pid)}))
        told = ProgressFile(folder / jobs.PROGRESS, "explain with <b>tokens</b>", 10)
        told.advance(4, "12 calls")
        told.write()
        at = dashboard("home", own)
        bar = at.get("progress")[0].proto
        assert bar.value == 40
        assert "4 of 10" in bar.text
        assert "12 calls" in bar.text
        monkeypatch.setenv("MONOSEM_READ_ONLY", "1")
        assert not [button for button in at.run().button if button.label == "Stop"]
        monkeypatch.setenv("MONOSEM_READ_ONLY", "0")
        at.run()
        next(button for button in at.button if button.label == "Stop").click().run()
        assert process.wait(10) != 0
        assert "Nothing is in progress." in said(at.run())
