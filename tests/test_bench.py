"""The benchmark harness: verdicts, paired timings, the form of result files, figures in documents."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import harness, render, run, train_quality, train_step
from bench.harness import Figure, Paired, paired
from bench.peers import answers
from sae import TopK, TopKConfig
from sae.metrics import evaluate

BENCH = Path(harness.__file__).parent
RESULTS = sorted(render.RESULTS.glob("*.json"))
HELPERS = {
    "api",
    "chromium",
    "concepts",
    "harness",
    "made_up",
    "mock_llm",
    "one_harvest",
    "one_index",
    "one_interpret",
    "planted_latents",
    "render",
    "run",
    "sides",
    "smollm2_runs",
    "words",
}
"""Modules in `bench` that benchmarks share."""


@pytest.mark.parametrize(
    ("value", "reach", "holds"),
    [
        (0.93, ">= 0.93", True),
        (0.9299, ">= 0.93", False),
        (1.4, "<= 1.4", True),
        (1.41, "<= 1.4", False),
        (0, "== 0", True),
        (7.0, None, None),
    ],
)
def test_a_figure_holds_where_its_value_reaches_what_was_asked(value: float, reach: str | None, holds: bool | None):
    assert Figure("n", value, "s", reach).holds is holds


@pytest.mark.parametrize("reach", ["about 3", "3", ">= three"])
def test_a_reach_that_cannot_be_read_is_an_error(reach: str):
    with pytest.raises((KeyError, ValueError)):
        _ = Figure("n", 1.0, "s", reach).holds


def test_pairs_are_timed_in_turn_and_warm_ups_are_not_counted():
    order: list[str] = []

    def work(name: str) -> float:
        order.append(name)
        return float(len(order))

    pair = paired(lambda: work("a"), lambda: work("b"), repeats=5, warmup=2)
    assert order == ["a", "b"] * 7
    assert pair == Paired(a=(5.0, 7.0, 9.0, 11.0, 13.0), b=(6.0, 8.0, 10.0, 12.0, 14.0))


def test_the_ratio_is_the_median_of_the_pairs_own_ratios():
    pair = Paired(a=(1.0, 20.0, 3.0), b=(1.0, 10.0, 1.0))
    assert pair.ratios == (1.0, 2.0, 3.0)
    assert pair.ratio == 2.0  # the ratio of the medians would be 3
    assert (pair.median_a, pair.median_b) == (3.0, 1.0)


def test_work_that_does_not_time_itself_is_timed():
    assert 0 <= harness.seconds(lambda: None) < 1


def test_few_pairs_are_refused():
    with pytest.raises(ValueError, match="at least 5"):
        paired(lambda: 1.0, lambda: 1.0, repeats=4)


def test_a_written_result_has_the_form_and_says_whether_all_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    figures = [Figure("speed", 2.0, "ratio", ">= 3"), Figure("size", 5.0, "MB")]
    assert harness.write("train_x", figures[1:]) is True
    assert harness.write("train_x", figures, n=3, times=Paired((2.0, 2.0), (1.0, 1.0))) is False
    document = json.loads((tmp_path / "train_x.json").read_text(encoding="utf-8"))
    check_form(document)
    assert document["settings"]["times"] == {"a": [2.0, 2.0], "b": [1.0, 1.0]}
    assert [path.name for path in tmp_path.iterdir()] == ["train_x.json"]
    printed = capsys.readouterr().out
    assert "MISSES >= 3" in printed
    assert "= 2.000 (2.000 to 2.000, 2 pairs)" in printed


def check_form(document: dict) -> None:
    """The keys, and verdicts that are those of the values."""
    assert list(document) == ["machine", "versions", "commit", "settings", "figures"]
    assert document["figures"]
    for figure in document["figures"]:
        assert list(figure) == ["name", "value", "unit", "reach", "holds"]
        verdict = figure.pop("holds")
        assert Figure(**figure).holds is verdict
    names = [figure["name"] for figure in document["figures"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_file_has_the_form(path: Path):
    check_form(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_file_has_its_benchmark(path: Path):
    assert path.stem in {benchmark.stem for benchmark in harness.benchmarks()}


def test_benchmarks_are_named_by_stage():
    assert {path.stem for path in BENCH.glob("*.py")} - {path.stem for path in harness.benchmarks()} == HELPERS


@pytest.mark.parametrize("path", harness.benchmarks(), ids=lambda path: path.stem)
def test_every_benchmark_exits_by_its_figures(path: Path):
    last = ast.parse(path.read_text(encoding="utf-8")).body[-1]
    assert ast.unparse(last) == "if __name__ == '__main__':\n    main(measure)"


def test_without_a_pattern_the_slow_ones_stay_out():
    known = ["demo", "harvest_store", "train_step"]
    assert run.chosen(known, []) == ["harvest_store", "train_step"]
    assert run.chosen(known, ["demo", "harvest*"]) == ["demo", "harvest_store"]
    assert {path.stem for path in harness.benchmarks()} >= run.SLOW


def test_the_runner_goes_on_after_a_failure_and_reports_it(monkeypatch: pytest.MonkeyPatch):
    ran: list[str] = []
    monkeypatch.setattr(run, "benchmarks", lambda: [Path("harvest_a.py"), Path("harvest_b.py")])
    monkeypatch.setattr(run, "succeeds", lambda name: ran.append(name) or name == "harvest_b")
    monkeypatch.setattr(sys, "argv", ["run.py"])
    with pytest.raises(SystemExit) as stop:
        run.main()
    assert stop.value.code == 1
    assert ran == ["harvest_a", "harvest_b"]


def test_the_runner_names_what_there_is_where_a_pattern_matches_nothing():
    found = subprocess.run([sys.executable, BENCH / "run.py", "nothing*"], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "no benchmark matches nothing*" in found.stderr


@pytest.mark.parametrize(("holds", "status"), [(True, 0), (False, 1)])
def test_a_benchmark_that_misses_exits_with_one(monkeypatch: pytest.MonkeyPatch, holds: bool, status: int):
    monkeypatch.setattr(render, "update", list)
    monkeypatch.setenv(harness.WAIT_POLICY, "PASSIVE")
    with pytest.raises(SystemExit) as stop:
        harness.main(lambda: holds)
    assert stop.value.code == status


def test_a_benchmark_starts_again_with_threads_that_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch):
    class Restarted(Exception):
        pass

    def execve(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        raise Restarted(environment[harness.WAIT_POLICY])

    monkeypatch.delenv(harness.WAIT_POLICY, raising=False)
    monkeypatch.setattr(harness.os, "execve", execve)
    with pytest.raises(Restarted, match="PASSIVE"):
        harness.main(lambda: True)


def test_a_block_in_a_document_is_made_from_its_result_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    harness.write(
        "train_x",
        [Figure("rows", 12_171.1, "rows/s"), Figure("speed", 1.2345, "", "<= 1"), Figure("seconds: step", 1.0, "s")],
    )
    begin, end = "<!-- figures: bench/results/train_x.json -->\n", "<!-- end of figures -->"
    text = render.rendered(f"before\n{begin}old\n{end}\nbetween\n{begin}{end} after\n")
    assert text.count("| rows | 12,171 rows/s |") == 2
    assert "| speed | 1.23, **misses <= 1** |" in text
    assert "seconds: step" not in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith(" after\n")
    assert render.rendered(text) == text


def test_the_peers_are_measured_by_the_projects_formula():
    sae = TopK(TopKConfig(d_in=6, d_sae=20, k=3))
    x = torch.randn(50, sae.cfg.d_in, generator=torch.Generator().manual_seed(1)) + 3

    def reconstruct(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = sae(rows)
        return out.x_hat, out.latents.dense()

    found, own = answers.heldout(x, reconstruct), evaluate(sae, [x])
    assert found == pytest.approx({"fvu": own.fvu, "l0": own.l0, "dead": own.dead_fraction})


def test_a_step_unlike_the_peers_is_not_compared():
    peer, own = [{"fvu": 0.5, "l0": 32.0}], [{"fvu": 0.5002, "l0": 32.0}]
    assert train_step.same("topk", peer, peer)["monosem"] == {"fvu": [0.5, 0.5], "l0": [32.0, 32.0]}
    with pytest.raises(RuntimeError, match="not the same step"):
        train_step.same("topk", peer, own)
    with pytest.raises(RuntimeError, match=r"65\.0 latents"):
        train_step.same("topk", [{"fvu": 0.5, "l0": 65.0}], peer)


def test_fvu_is_read_off_at_the_peers_l0():
    runs = [train_quality.Trained(fvu, l0, 0.0, 1.0) for fvu, l0 in ((0.1, 64.0), (0.4, 16.0))]
    assert train_quality.fvu_at(32.0, runs) == pytest.approx(0.2)
    assert train_quality.fvu_at(63.5, runs) == 0.1
    assert train_quality.fvu_at(80.0, runs) is None


def test_a_seed_whose_l0_is_not_met_is_counted_and_gives_no_ratio():
    own = train_quality.Trained(0.2, 32.0, 0.0, 1.0)
    peers = [train_quality.Trained(0.4, l0, 0.0, 1.0) for l0 in (32.0, 90.0)]
    case = train_quality.CASES[0]
    found = train_quality.figures_of(case, "one rate", [train_quality.Pairing(peer, (own,)) for peer in peers])
    assert [(figure.value, figure.holds) for figure in found[:2]] == [(0.5, True), (1, False)]
    found = train_quality.figures_of(case, "one rate", [train_quality.Pairing(peers[1], (own,))])
    assert case.title("one rate") not in {figure.name for figure in found}
