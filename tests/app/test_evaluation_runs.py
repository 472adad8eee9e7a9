"""Runs of an evaluation: told in a few words, checked, killed and taken up again, never made by two at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import main
from app.evaluation import job
from store.catalog import Catalog
from store.figures import FIGURES_FILE, find, read_measured
from store.run import MANIFEST, Run, find_run, list_runs, locked, start_run

MONOSEM = str(Path(sys.executable).with_name("monosem"))
PARTS = ("reconstruction", "loss", "geometry", "itda")
"""In this order; the last does not apply to a trained dictionary."""


@pytest.fixture(scope="module")
def trained(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny demo's harvest with two dictionaries."""
    root = tmp_path_factory.mktemp("trained") / "runs"
    for kind in ("activations", "sae"):
        shutil.copytree(tiny_root / kind, root / kind)
    assert main(f"train topk --k 4 --d-sae 48 --n-steps 20 --batch-size 64 --root {root}".split()) == 0
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both dictionaries evaluated and compared."""
    root = Path(shutil.copytree(trained, tmp_path_factory.mktemp("evaluated") / "runs"))
    saes = [run.id for run in list_runs(root, "sae")]
    assert main(["evaluate", *saes, "--quick", "--only", *PARTS, "similarity", "--root", str(root)]) == 0
    return root


def shown(root: Path, run: Run, capsys: pytest.CaptureFixture) -> list[str]:
    capsys.readouterr()
    assert main(["show", run.id, "--root", str(root)]) == 0
    return capsys.readouterr().out.splitlines()


class TestShow:
    def test_a_dictionary_names_every_part_with_what_sums_it_up(self, evaluated: Path, capsys: pytest.CaptureFixture):
        sae = list_runs(evaluated, "sae")[0]
        used = [line for line in shown(evaluated, sae, capsys) if line.startswith("  used by: ")]
        for part in PARTS:
            (line,) = [line for line in used if f"  {part}" in line]
            (run,) = [r for r in list_runs(evaluated, "evaluation") if r.id in line]
            assert (run.inputs["sae"], run.config["part"]) == (sae.id, part)
        (reconstruction,) = [line for line in used if "reconstruction: fvu " in line]
        assert "l0 4" in reconstruction
        assert any("itda does not apply: " in line for line in used)
        assert any("comparison" in line and "similarity: " in line for line in used)
        assert any("2 dictionaries in report.html" in line for line in used)

    def test_a_part_names_the_query_for_all_its_figures(self, evaluated: Path, capsys: pytest.CaptureFixture):
        runs = [*list_runs(evaluated, "evaluation"), *list_runs(evaluated, "comparison")]
        for run in runs:
            lines = shown(evaluated, run, capsys)
            queries = [line.split('"')[1] for line in lines if line.startswith("  all figures: monosem sql ")]
            assert bool(queries) == ("not_applicable" not in run.results)
            for query in queries:
                assert len(Catalog(evaluated).sql(query)) > 0

    def test_a_report_says_what_is_in_it(self, evaluated: Path, capsys: pytest.CaptureFixture):
        lines = shown(evaluated, find_run(evaluated, "latest", "report"), capsys)
        assert "    failed: none" in lines
        assert "    n_dictionaries: 2" in lines
        assert any(line.startswith("    similarity: ") for line in lines)

    def test_a_report_says_what_could_not_be_measured(self, root: Path, capsys: pytest.CaptureFixture):
        with start_run(root, "report", {"layout": 1, "failed": [{}, {"loss": "no network"}]}, {}) as run:
            run.finish({"file": "report.html", "n_dictionaries": 1})
        lines = shown(root, run, capsys)
        assert "      1:" in lines
        assert "        loss: no network" in lines

    def test_an_evaluation_of_an_earlier_version_hides_nobody(self, root: Path, capsys: pytest.CaptureFixture):
        with start_run(root, "evaluation", {"n": 1}, {"sae": find_run(root, "latest", "sae").id}) as run:
            run.finish({"fvu": 0.25, "heldout": {"normal": {"fvu": 0.25}}, "baseline": "mean"})
        assert main(["show", "--root", str(root)]) == 0
        assert "of an earlier version: fvu 0.25" in capsys.readouterr().out
        assert "      normal:" in shown(root, run, capsys)


def test_verify_knows_every_kind_of_run(evaluated: Path, capsys: pytest.CaptureFixture):
    kinds = {"evaluation": 2, "comparison": 2, "report": 1}
    for kind, n_files in kinds.items():
        for run in list_runs(evaluated, kind):
            capsys.readouterr()
            assert main(["verify", run.id, "--root", str(evaluated)]) == 0
            n = 0 if "not_applicable" in run.results else n_files
            assert f"all {n} files of {kind} {run.id} are as they were written" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["evaluation", "comparison", "report"])
def test_verify_names_what_changed(evaluated: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture):
    root = Path(shutil.copytree(evaluated, tmp_path / "runs"))
    run = next(run for run in list_runs(root, kind) if run.manifest["files"])
    name = next(iter(run.manifest["files"]))
    path = run.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["verify", run.id, "--root", str(root)]) == 2
    printed = capsys.readouterr()
    assert printed.out == f"damaged  {name}\n"
    assert f"delete {run.folder} and make it again" in printed.err


def test_a_damaged_part_is_one_line_with_the_way_out(evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    root = Path(shutil.copytree(evaluated, tmp_path / "runs"))
    run = next(run for run in list_runs(root, "evaluation") if run.config["part"] == "loss")
    (run.folder / FIGURES_FILE).write_bytes(b"garbage")
    command = ["evaluate", run.inputs["sae"], "--quick", "--only", "loss", "--root", str(root)]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"delete {run.folder} and make it again" in line
    shutil.rmtree(run.folder)
    assert main(command) == 0


def test_the_catalogue_has_what_the_report_has(evaluated: Path):
    opened = Catalog(evaluated)
    for run in [*list_runs(evaluated, "evaluation"), *list_runs(evaluated, "comparison")]:
        if "not_applicable" not in run.results:
            assert len(opened.sql("FROM figures WHERE run = ?", [run.id])) == len(read_measured(run).figures)
    query = (
        "SELECT sae, value FROM compared WHERE metric = 'fvu' AND token_class = 'normal' AND part = 'reconstruction'"
    )
    values = {row["sae"]: row["value"] for row in opened.arrow(query).to_pylist()}
    for run in list_runs(evaluated, "evaluation"):
        if run.config["part"] == "reconstruction":
            figure = find(read_measured(run).figures, "fvu", token_class="normal")
            assert figure is not None
            assert values[run.inputs["sae"]] == figure.value


def test_an_evaluation_killed_at_any_moment_keeps_its_parts_and_is_finished_by_the_next_one(root: Path):
    """Killed inside one part after another: what was finished stays and is not made again."""
    command = [MONOSEM, "evaluate", "latest", "--quick", "--only", *PARTS, "--root", str(root)]
    finished: dict[str, dict] = {}
    for marker, n_kept in (("reconstruct …", 0), ("cross-entropy", 1), ("compare directions", 2)):
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if marker in line:
                    os.kill(process.pid, signal.SIGKILL)
                    break
            assert process.wait(60) == -signal.SIGKILL
        runs = list_runs(root, "evaluation")
        assert len(runs) >= n_kept  # more where this process was slow to kill
        assert not any(run.broken_files() for run in runs)
        kept = {run.id: run.manifest for run in runs}
        assert finished.items() <= kept.items()
        finished = kept
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    reused = ["was there already" in line for line in lines if line.startswith("  ")]
    assert reused == [number < len(finished) for number in range(len(PARTS))]
    runs = list_runs(root, "evaluation")
    assert [run.config["part"] for run in runs] == list(PARTS)
    assert finished.items() <= {run.id: run.manifest for run in runs}.items()
    assert Path(found.stdout.rsplit("report: ", 1)[1].strip()).exists()
    assert not any("process" in run.manifest for run in list_runs(root))


def test_of_two_at_once_the_second_says_who_is_making_it(root: Path, capsys: pytest.CaptureFixture):
    command = ["evaluate", "latest", "--quick", "--only", *PARTS, "--root", str(root)]
    with subprocess.Popen([MONOSEM, *command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "reconstruct …" in line:
                first.send_signal(signal.SIGSTOP)
                break
        try:
            assert main(command) == 2
            printed = capsys.readouterr()
            line = printed.err.strip().splitlines()[-1]
            assert line.startswith("error: another process is making evaluation ")
            assert f" in {root} (process {first.pid} on " in line
            assert "wait for it" in line
            assert printed.out == ""
        finally:
            first.send_signal(signal.SIGCONT)
        first.stderr.read()
        assert first.wait(60) == 0
    assert main(command) == 0
    assert capsys.readouterr().out.count("was there already") == len(PARTS)


def test_a_part_that_somebody_else_makes_stops_the_rest(root: Path, capsys: pytest.CaptureFixture):
    """Whoever went on to the next part would be in the way of the first process there."""
    sae, harvest = find_run(root, "latest", "sae"), find_run(root, "latest", "activations")
    inputs = {"sae": sae.id, "activations": harvest.id}
    (asked,) = job.requests(["reconstruction"], quick=True)
    with start_run(root, "evaluation", asked, inputs) as run:
        pass
    manifest = json.loads((run.folder / MANIFEST).read_text())
    with locked(run.folder):
        assert main(["evaluate", "latest", "--quick", "--only", *PARTS, "--root", str(root)]) == 2
    assert f"(process {manifest['process']})" in capsys.readouterr().err
    assert list_runs(root, "evaluation") == []
