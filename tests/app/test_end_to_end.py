"""The newcomer's path on the real model: the demo's figures, its second run, and its dashboard in real Chromium."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from activations.models import DEFAULT_MODEL, find_model
from activations.tokenizer import HFTokenizer
from app.evaluation.evaluated import evaluations_of
from app.evaluation.loss import ABLATIONS
from app.evaluation.parts import PARTS
from app.workbench import Workbench
from autointerp.embedders import EMBEDDERS
from store.figures import Figure, find
from store.latents import token_texts
from store.run import find_run, list_runs

pytestmark = pytest.mark.slow
ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "dashboard"
MONOSEM = str(Path(sys.executable).with_name("monosem"))


def demo(root: Path) -> float:
    """Wall seconds of `monosem demo --no-serve`."""
    started = time.perf_counter()
    subprocess.run([MONOSEM, "demo", "--no-serve", "--out", str(root)], check=True)
    return time.perf_counter() - started


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A folder that outlives the session may be named, so that a developer need not wait for every stage again.
    kept = os.environ.get("MONOSEM_TEST_RUNS")
    root = Path(kept) if kept else tmp_path_factory.mktemp("demo") / "runs"
    demo(root)
    return root


def value(figures: Sequence[Figure], metric: str, **where: str) -> float:
    found = find(figures, metric, **where)
    assert found is not None
    assert found.value is not None
    return found.value


def test_every_stage_is_finished_and_whole(root: Path):
    kinds = {run.kind for run in list_runs(root)}
    assert kinds == {"activations", "sae", "evaluation", "index", "explanations", "scores"}
    assert all(not run.broken_files() for run in list_runs(root))


def test_memory_stays_under_six_gigabytes(root: Path):
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 6e9


def test_the_held_out_figures_are_at_least_those_of_a_bare_sketch(root: Path):
    evaluated = evaluations_of(root, find_run(root, "latest", "sae"))[-1]
    rows, losses = (evaluated.measured(part).figures for part in ("reconstruction", "loss"))
    assert value(rows, "fvu", token_class="all_but_first") <= 0.13
    fvu = find(rows, "fvu", token_class="normal")
    assert fvu.n > 5000
    assert fvu.low < fvu.value < fvu.high
    assert value(rows, "n_dead") == 0
    assert 0 < value(rows, "l0", token_class="normal") <= 32
    assert 0.9 < value(losses, "loss_recovered", setting="against mean ablation") <= 1.05
    clean, zero, mean = (value(losses, "cross_entropy", arm=arm) for arm in ("clean model", *ABLATIONS))
    assert clean < value(losses, "cross_entropy") < min(zero, mean)


def test_the_harvest_is_large_enough_and_split_by_document(root: Path):
    found = find_run(root, "latest", "activations").results
    assert 130_000 <= found["n_tokens"] < 135_000
    assert found["n_documents_heldout"] > 20
    assert 0 < found["hook_points"]["blocks.8.hook_resid_post"]["n_rows"]["sink"] < 0.06 * found["n_tokens"]


def test_explanations_are_scored_beside_their_null(root: Path):
    found = find_run(root, "latest", "scores").results
    assert found["explanation"]["n_scored"] == found["shuffled"]["n_scored"] == 30
    assert found["explanation"]["mean"] > found["shuffled"]["mean"]
    assert found["shuffled"]["mean"] == pytest.approx(0.5, abs=0.08)


def test_the_second_demo_reuses_everything_and_is_done_in_seconds(root: Path):
    before = {run.id: run.manifest["finished_at"] for run in list_runs(root)}
    assert demo(root) < 30
    assert before == {run.id: run.manifest["finished_at"] for run in list_runs(root)}


def test_a_text_is_inspected_and_steered(root: Path):
    wb = Workbench.open(root)
    found = wb.inspect("The king lived in a castle by the sea.")
    assert "".join(found.tokens[1:]) == "The king lived in a castle by the sea."
    assert found.fvu is not None
    assert found.fvu < 0.5
    latent = int(found.top(1)["latent"][0])
    assert found.values(latent).max() > 0
    prompt = "Tell me about your day."
    steered = wb.steer(prompt, latent, 4.0, n_tokens=12, temperature=0.0)
    assert steered.clean != steered.steered
    assert steered.n_hook_calls == len(steered.steered_tokens) or steered.n_hook_calls == 12
    assert steered.clean == wb.steer(prompt, latent, 4.0, n_tokens=12, temperature=0.0).clean


def test_a_person_goes_through_the_dashboard(root: Path, browser):
    browser.require_chromium()
    scored = Workbench.open(root).features("score IS NOT NULL", order_by="score DESC", limit=1)
    with browser.served(root) as base_url:
        browser.drive_dashboard(base_url, ARTIFACTS, int(scored["latent"][0]))


def test_the_real_tokenizer_keeps_the_promises_of_the_byte_one():
    folder = find_model(DEFAULT_MODEL).folder
    assert folder is not None
    tokenizer = HFTokenizer(folder)
    text = "Naïve café 🙂 — “quoted”\nnew line"
    encoding = tokenizer.encode(text)
    assert tokenizer.bos_id not in encoding.ids, "BOS is added by sequences, not here"
    assert "".join(token_texts(text, encoding.char_start, encoding.char_end)) == text
    assert tokenizer.decode(encoding.ids) == text
    chat = tokenizer.decode(tokenizer.chat("hello"))
    assert "hello" in chat
    assert chat.endswith("<|im_start|>assistant\n")


def test_the_real_embedder_knows_what_is_alike():
    embed = EMBEDDERS["minilm"]()
    cat, kitten, tax = embed(["The cat sleeps.", "A kitten is napping.", "Income tax is due in April."])
    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-5)
    assert cat @ kitten > 0.5 > cat @ tax


def test_a_quick_evaluation_of_every_part_makes_a_report_that_draws_itself(root: Path, browser):
    """Every part on the real model; the report in a real browser, with no request to anywhere."""
    command = [MONOSEM, "evaluate", "latest", "--quick", "--root", str(root)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = Path(done.stdout.rsplit("report: ", 1)[1].strip())
    evaluated = evaluations_of(root, find_run(root, "latest", "sae"))[-1]
    assert set(evaluated.runs) == set(PARTS)
    probing = evaluated.measured("probing").figures
    best, random = (
        value(probing, "probe_balanced_accuracy", setting="mean k=5", arm=a) for a in ("sae", "random_latents")
    )
    assert best > random + 0.1
    assert value(evaluated.measured("recovery").figures, "planted_mcc") > 0.9
    browser.require_chromium()
    assert browser.draw_report(report, ARTIFACTS) >= 8


REAL = [
    path
    for path in sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
    if json.loads(path.read_text(encoding="utf-8"))["metadata"].get("monosem", {}).get("needs") == "smollm2"
]


@pytest.mark.parametrize("notebook", REAL, ids=lambda path: path.name)
def test_notebooks_on_the_real_model_run_from_top_to_bottom(
    notebook: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    # What it makes stays out of a folder that is kept.
    (tmp_path / "runs").mkdir()
    for kind in root.iterdir():
        (tmp_path / "runs" / kind.name).symlink_to(kind)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), notebook.name, "exec"), names)  # noqa: S102 - they are ours
    said = capsys.readouterr().out
    assert "random latents do" in said, "it ends in what came out, beside the control"
