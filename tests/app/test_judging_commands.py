"""Commands that say what explanations and scores are worth, on runs of the tiny recipe."""

import json
import shutil
from pathlib import Path

import pytest

from app.cli import main
from store.run import find_run, list_runs

SAMPLE = "--n-latents 6 --min-contexts 3 --min-docs 2 --max-density 0.5 --n-score 10 --half-window 6"


@pytest.fixture(scope="module")
def root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny runs; the same latents explained from few contexts and from more, and scored by one scorer."""
    root = tmp_path_factory.mktemp("judging") / "runs"
    shutil.copytree(tiny_root, root)
    for n_explain in (3, 9):
        command = f"interpret {SAMPLE} --n-explain {n_explain} --embedder hashed --n-null 0"
        assert main([*command.split(), "--root", str(root)]) == 0
    return root


def newest_scores(root: Path) -> list[str]:
    return [run.id for run in list_runs(root, "scores")[-2:]]


def test_compare_prints_the_difference_and_what_it_may_come_from(root: Path, capsys: pytest.CaptureFixture):
    assert main(["compare", "--root", str(root)]) == 0
    printed = capsys.readouterr().out
    for expected in ("explanations.sample.n_explain: 3 | 9", "above shuffled", "p, Holm", "needed"):
        assert expected in printed


def test_compare_prints_rows_for_programs(root: Path, capsys: pytest.CaptureFixture):
    a, b = newest_scores(root)
    capsys.readouterr()
    assert main(["compare", a, b, "--root", str(root), "--format", "json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    means = [find_run(root, run, "scores").results["explanation"]["mean"] for run in (a, b)]
    assert rows[0]["what"] == "score"
    assert rows[0]["difference"] == pytest.approx(means[0] - means[1])


@pytest.mark.parametrize("named", [["latest", "latest"], ["latest"]])
def test_compare_wants_two_runs(root: Path, named: list[str], capsys: pytest.CaptureFixture):
    assert main(["compare", *named, "--root", str(root)]) == 2
    assert "two" in capsys.readouterr().err
