"""The report: figures with their controls, several dictionaries side by side, seeds together, nothing executed."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.cli import main
from app.evaluation.comparable import differences
from app.evaluation.evaluated import Evaluated
from app.evaluation.job import evaluate_dictionary, requests
from app.report.compared import groups
from app.report.job import render, write_report
from app.report.view import by_class, cell, of_one, page
from sae.intervals import seeds_interval
from store.figures import Figure, find
from store.run import find_run, list_runs

PARTS = ("reconstruction", "loss", "legacy")


@pytest.fixture(scope="module")
def root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One harvest; TopK at two sparsities, the first from two seeds; and a discrete one, which has bits."""
    root = tmp_path_factory.mktemp("report") / "runs"
    shutil.copytree(tiny_root / "activations", root / "activations")
    for settings in ("topk --k 4", "topk --k 4 --seed 1", "topk --k 8", "discrete --k 4"):
        command = f"train {settings} --d-sae 48 --n-steps 20 --batch-size 64 --root {root}"
        assert main(command.split()) == 0
    return root


@pytest.fixture(scope="module")
def evaluated(root: Path) -> list[Evaluated]:
    harvest = find_run(root, "latest", "activations")
    asked = requests(PARTS, given={"loss": {"n_sequences": 6}})
    return [evaluate_dictionary(asked, run, harvest, root) for run in list_runs(root, "sae")]


def test_seeds_of_one_setting_are_one_group_with_an_interval_over_them(evaluated: list[Evaluated]):
    found = groups(evaluated)
    assert [len(group.members) for group in found] == [2, 1, 1]
    own = [find(one.measured("reconstruction").figures, "fvu", token_class="normal").value for one in evaluated[:2]]
    mean = find(found[0].figures("reconstruction"), "fvu", token_class="normal")
    assert mean.value == pytest.approx(sum(own) / 2)
    assert (mean.low, mean.high) == pytest.approx(seeds_interval(np.array(own)))
    assert "2 seeds" in found[0].name


def test_settings_of_one_name_stay_apart_and_the_same_dictionary_twice_is_no_seed(root: Path, tmp_path: Path, capsys):
    """Two learning rates, two seeds each: their titles are the same words."""
    other = tmp_path / "runs"
    shutil.copytree(root / "activations", other / "activations")
    for settings in ("--lr 0.001 --seed 1", "--lr 0.001 --seed 2", "--lr 0.01 --seed 1", "--lr 0.01 --seed 2"):
        command = f"train topk --k 4 {settings} --d-sae 48 --n-steps 10 --batch-size 64 --root {other}"
        assert main(command.split()) == 0
    harvest = find_run(other, "latest", "activations")
    asked = requests(["reconstruction"])
    found = [evaluate_dictionary(asked, run, harvest, other) for run in list_runs(other, "sae")]
    names = [group.name for group in groups(found)]
    assert len(set(names)) == 2
    assert all("lr=" in name for name in names)
    (section, *_) = page(found).sections
    assert list(section.table.columns) == names
    capsys.readouterr()
    one = found[0].sae_run.id
    assert main(["evaluate", one, one[:8], "--only", "reconstruction", "--root", str(other)]) == 0
    assert capsys.readouterr().out.count("reconstruction: fvu") == 1


def test_what_makes_classes_differ_is_said(root: Path, evaluated: list[Evaluated], tmp_path: Path):
    other = tmp_path / "runs"
    harvest = "harvest --model tiny --hook-points blocks.1.hook_resid_post --corpus stories --sink-norm-ratio 1.1"
    assert main([*harvest.split(), "--root", str(other)]) == 0
    loose = replace(evaluated[0], activations_run=find_run(other, "latest", "activations"))
    said = differences([evaluated[0], loose])
    assert any("norms that make sinks" in line for line in said)


def test_a_seed_without_a_value_withholds_the_mean(evaluated: list[Evaluated]):
    (group, *_) = groups(evaluated)
    found = find(group.figures("reconstruction"), "fvu", token_class="role")
    assert found.value is None


def test_dictionaries_measured_alike_may_be_compared(evaluated: list[Evaluated]):
    assert differences(evaluated) == []


def test_what_was_measured_otherwise_is_said(root: Path, evaluated: list[Evaluated]):
    sae, harvest = find_run(root, "latest", "sae"), find_run(root, "latest", "activations")
    other = evaluate_dictionary(requests(PARTS, given={"loss": {"n_sequences": 5}}), sae, harvest, root)
    (said,) = differences([evaluated[0], other])
    assert said.startswith("settings of loss differ")
    shown = render(page([evaluated[0], other]))
    assert "not all about the same thing" in shown
    assert "settings of loss differ" in shown


def test_the_page_has_every_figure_and_draws_without_a_network(root: Path, evaluated: list[Evaluated]):
    path = write_report(evaluated[:1], root)
    text = path.read_text(encoding="utf-8")
    for part in PARTS:
        assert f'id="{part}"' in text
        for figure in evaluated[0].measured(part).figures:
            assert cell(figure).text in text
    assert "<script src" not in text
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', markup), "the page needs nothing but itself"
    assert write_report(evaluated[:1], root) == path


def test_what_is_traded_for_what_is_plotted_with_its_intervals(evaluated: list[Evaluated]):
    shown = page(evaluated)
    titles = [figure.layout.title.text for figure in shown.trades]
    assert titles[:2] == ["FVU against L0", "loss recovered against L0"]
    fvu = shown.trades[0]
    assert len(fvu.data) == 3
    for trace in fvu.data:
        assert trace.error_y.array[0] > 0


def test_controls_stand_in_columns_beside_one_dictionary_and_in_rows_below_several(evaluated: list[Evaluated]):
    (loss,) = [s for s in page(evaluated[:1]).sections if s.name == "loss"]
    assert list(loss.table.columns) == ["sae", "clean model", "zero ablation", "mean ablation"]
    (loss,) = [s for s in page(evaluated).sections if s.name == "loss"]
    assert len(loss.table.columns) == 3
    assert "cross-entropy, zero ablation" in [row.label for row in loss.table.rows]


def test_a_missing_figure_says_why():
    figure = Figure(metric="fvu", value=None, n=3, n_of="rows", token_class="role", note="withheld: 3 rows")
    assert cell(figure) == cell(replace(figure, low=0.1, high=0.2))
    assert cell(figure).text == "–"
    assert "withheld" in cell(figure).note
    assert of_one([figure]) == by_class([figure])


def test_names_from_elsewhere_are_shown_and_not_executed(evaluated: list[Evaluated]):
    evil = "<script>window.pwned=1</script>"
    one = evaluated[0]
    config = {**one.sae_run.config, "hook_point": evil, "variant": evil}
    hostile = replace(one, sae_run=replace(one.sae_run, manifest={**one.sae_run.manifest, "config": config}))
    text = render(page([hostile, evaluated[2]]))
    assert evil not in text
    assert "&lt;script&gt;window.pwned" in text


def test_the_command_writes_one_report_on_several(root: Path, capsys: pytest.CaptureFixture):
    first, second = (run.id for run in list_runs(root, "sae")[:2])
    command = ["evaluate", first[:8], second[:8], "--root", str(root), "--only", "reconstruction"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.count("reconstruction: fvu") == 2
    report = Path(printed.rsplit("report: ", 1)[1].strip())
    assert report.exists()
    assert main(["show", "--root", str(root)]) == 0
    assert "2 dictionaries in report.html" in capsys.readouterr().out
