"""The page Training under Streamlit's AppTest: trainings that finished, were killed, and run while one looks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import app.web
from app.figures_training import MOST_POINTS, Look, curve_figure, smoothed
from app.trainings import trainings
from app.web.navigation import file_of
from app.web.panels.training_live import read
from store.run import Run, list_runs, locked, unfinished_runs

torch.set_num_threads(1)

MAIN = Path(app.web.__file__).parent / "main.py"
N_CURVES = 5


@pytest.fixture
def root(trained_root: Path) -> Path:
    return trained_root


@pytest.fixture
def page(monkeypatch):
    """Opens the page on a root."""

    def open_page(root: Path, **query: str | list[str]) -> AppTest:
        monkeypatch.setenv("MONOSEM_ROOT", str(root))
        at = AppTest.from_file(str(MAIN), default_timeout=60)
        at.switch_page(str(file_of("training")))
        for key, value in query.items():
            at.query_params[key] = value
        return at.run()

    return open_page


def ids(root: Path) -> list[str]:
    return [run.id for run in list_runs(root, "sae")]


def unfinished(root: Path) -> Run:
    (run,) = unfinished_runs(root, "sae")
    return run


def charts(at: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def html(at: AppTest) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def test_without_any_run_it_says_what_to_run(page, tmp_path):
    at = page(tmp_path)
    assert not at.exception
    assert not at.error
    assert "monosem demo" in at.info[0].value


def test_a_dictionary_that_was_not_trained_here_is_told_apart(page, runs_root):
    at = page(runs_root)
    assert not at.exception
    assert "1 imported, which have no log" in at.info[0].value


def test_curves_are_the_numbers_of_the_logs(page, root):
    a, b = ids(root)
    at = page(root, runs=[a, b])
    assert not at.exception
    assert len(charts(at)) == N_CURVES
    log = [json.loads(line) for line in (root / "sae" / a / "log.jsonl").read_text().splitlines()]
    drawn = curve_figure("loss", {"a": read(root / "sae" / a / "log.jsonl")}, Look())
    assert list(drawn.data[0].x) == [10, 20, 30, 40]
    assert list(drawn.data[0].y) == [line["loss"] for line in log]
    assert all(len(chart["data"]) == 2 for chart in charts(at))
    assert a[:8] in html(at)
    assert b[:8] in html(at)


def test_the_settings_that_differ_are_told(page, root):
    differ = page(root, runs=ids(root)).dataframe[0].value
    assert differ["setting"].tolist() == ["sae.k"]
    assert differ.iloc[0, 1:].tolist() == ["3", "5"]


def test_all_trainings_stand_in_the_table_with_their_figures(page, root):
    rows = page(root).dataframe[-1].value.set_index("run")
    assert set(rows.index) == {*ids(root), unfinished(root).id}
    run = list_runs(root, "sae")[0]
    assert rows.loc[run.id, "heldout_fvu"] == run.results["heldout_fvu"]
    assert rows.loc[run.id, "state"] == "finished"
    assert np.isnan(rows.loc[unfinished(root).id, "heldout_fvu"]), "what is not known is empty"


def test_a_killed_training_is_shown_as_such_with_the_command_that_goes_on(page, root):
    run = unfinished(root)
    at = page(root, runs=run.id)
    assert any(f"{run.id[:8]}" in text.value and "interrupted" in text.value for text in at.markdown)
    assert any("checkpoint at step 40" in text.value for text in at.markdown)
    assert at.code[0].value.startswith(f"monosem train relu --activations {run.inputs['activations']}")
    assert f"--root {root}" in at.code[0].value
    assert charts(at)[0]["data"], "what it logged before is drawn"


def test_a_running_training_is_followed_and_never_by_half_a_line(page, root, tmp_path):
    shutil.copytree(root, tmp_path / "runs")
    run = unfinished(tmp_path / "runs")
    log = run.folder / "log.jsonl"
    first, second, *_ = log.read_text().splitlines()
    log.write_text(first + "\n" + second[:9])
    with locked(run.folder):
        at = page(tmp_path / "runs", runs=run.id)
        assert not at.code
        assert "step 10 of 40" in at.get("progress")[0].proto.text
        log.write_text(first + "\n" + second + "\n")
        at.run()
        assert "step 20 of 40" in at.get("progress")[0].proto.text
        assert trainings(tmp_path / "runs")[-1].running
    assert not at.exception


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"runs": "nothing"}, "is none of these"),
        ({"runs": "<b>*x*"}, "is none of these"),
        ({"show": "speed"}, "is not in the logs"),
        ({"smooth": "9", "x": "time", "log": "maybe"}, None),
    ],
)
def test_nonsense_in_the_address_is_one_line(page, root, query, said):
    at = page(root, **query)
    assert not at.exception
    assert charts(at)
    assert [said in warning.value for warning in at.warning] == ([True] if said else [])


def test_curves_are_chosen_in_the_address(page, root):
    at = page(root, runs=ids(root)[0], show=["fvu", "aux"])
    assert len(charts(at)) == 2


def test_smoothing_is_off_and_is_told_where_it_is_on(page, root):
    assert not any("smoothed" in caption.value for caption in page(root).caption)
    at = page(root, smooth="0.8", runs=ids(root)[0])
    assert any("smoothed by a running mean of weight 0.8" in caption.value for caption in at.caption)
    assert len(charts(at)[0]["data"]) == 2, "what was logged stands behind"


def test_a_running_mean_has_no_bias_at_its_start_and_keeps_gaps():
    assert smoothed(np.full(9, 4.0), 0.9) == pytest.approx(np.full(9, 4.0))
    y = smoothed(np.array([1.0, np.nan, 3.0]), 0.5)
    assert np.isnan(y[1])
    assert y[2] == pytest.approx((0.5 * 0.5 * 1 + 0.5 * 3) / (0.5 * 0.5 + 0.5))


def test_a_log_axis_is_for_what_is_positive():
    log = [{"step": 10, "n_tokens": 20, "fvu": 0.5, "n_dead": 0}]
    assert curve_figure("fvu", {"a": log}, Look(log_y=True)).layout.yaxis.type == "log"
    assert curve_figure("n_dead", {"a": log}, Look(log_y=True)).layout.yaxis.type == "linear"
    assert list(curve_figure("fvu", {"a": log}, Look(x="n_tokens")).data[0].x) == [20]


def test_a_number_that_never_changes_is_read_off_its_axis():
    log = [{"step": step, "lr": 0.003, "n_dead": 0, "fvu": 1 / step} for step in (1, 2, 3)]
    ranges = [curve_figure(name, {"a": log}, Look()).layout.yaxis.range for name in ("lr", "n_dead", "fvu")]
    assert ranges == [(0, 0.006), (0, 1), None]


def test_of_a_long_log_the_last_step_is_drawn():
    log = [{"step": step, "fvu": 1.0} for step in range(1, 5 * MOST_POINTS + 4)]
    drawn = curve_figure("fvu", {"a": log}, Look()).data[0].x
    assert len(drawn) <= MOST_POINTS
    assert drawn[-1] == log[-1]["step"]
