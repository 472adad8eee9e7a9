"""Every command and snippet in the documents runs; every figure in them comes from a result file."""

import ast
import inspect
import json
import re
import shlex
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from app.cli import main
from autointerp.arms import NULLS
from autointerp.explain import EXPLAINERS
from autointerp.explain.asking import Asking
from autointerp.llm import BACKENDS
from autointerp.llm.config import CAPS
from autointerp.scorers import SCORERS
from autointerp.statistics import METRICS
from bench import render

REPO = Path(__file__).parents[1]
DOCUMENTS = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def workspace(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose `runs` are the tiny demo's."""
    shutil.copytree(tiny_root, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rate_sheet(workspace: Path) -> None:
    """What a person does between two commands: the sheet comes back with ratings on it."""
    sheet = pd.read_csv(workspace / "sheet.csv")
    sheet["rating"] = [latent % 5 + 1 for latent in sheet["latent"]]
    sheet.to_csv(workspace / "rated.csv", index=False)


BY_HAND = {"rated.csv": rate_sheet}
"""Files that no command makes."""


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "bash")], ids=lambda d: d.name)
def test_commands_run_in_the_order_they_are_shown(document: Path, workspace: Path):
    lines = [line for block in blocks(document, "bash") for line in block.strip().splitlines()]
    assert lines
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "monosem", line
        for name in BY_HAND.keys() & set(words):
            BY_HAND[name](workspace)
        assert main(words[1:]) == 0, line


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "python")], ids=lambda d: d.name)
def test_snippets_run(document: Path, workspace: Path):
    for block in blocks(document, "python"):
        exec(compile(block, document.name, "exec"), {})  # noqa: S102 - the documents are ours


NOTEBOOKS = sorted((REPO / "docs" / "notebooks").glob("*.ipynb"))


def shown_by(source: str, name: str, names: dict) -> Any:
    """Run a cell as a notebook does: what its last line, if that is an expression, is worth."""
    cell = ast.parse(source, name)
    last = ast.Expression(cell.body.pop().value) if isinstance(cell.body[-1], ast.Expr) else None  # type: ignore[attr-defined]
    exec(compile(cell, name, "exec"), names)  # noqa: S102 - the documents are ours
    return None if last is None else eval(compile(last, name, "eval"), names)  # noqa: S307 - likewise


def of_any_run(notebook: Path) -> bool:
    """Whether the tiny demo is enough for it; the others are run by tests/app/test_end_to_end.py."""
    return "needs" not in json.loads(notebook.read_text(encoding="utf-8"))["metadata"].get("monosem", {})


@pytest.mark.parametrize("notebook", filter(of_any_run, NOTEBOOKS), ids=lambda path: path.name)
def test_notebooks_run_from_top_to_bottom_and_what_they_show_loads_nothing(notebook: Path, workspace: Path, loading):
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    names: dict = {}
    for cell in cells:
        shown = shown_by("".join(cell["source"]), notebook.name, names)
        if hasattr(shown, "_repr_html_"):
            assert loading(shown._repr_html_()).found == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_kept_without_what_they_gave(notebook: Path):
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_commands_named_in_the_text_exist():
    from app.cli import COMMANDS

    for document in (*DOCUMENTS, REPO / "CHANGELOG.md", REPO / "CONTRIBUTING.md"):
        for name in re.findall(r"`monosem ([a-z]+)", document.read_text(encoding="utf-8")):
            assert name in COMMANDS, f"{document.name}: monosem {name}"


def test_make_targets_in_the_documents_exist():
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in (*DOCUMENTS, REPO / "CONTRIBUTING.md"):
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets, document.name


def test_continuous_integration_calls_the_readmes_test_command():
    script = (REPO / ".ci" / "run").read_text(encoding="utf-8")
    assert {"make lint", "make test", "make test-shapes", "make test-slow"} <= {
        line.strip() for line in script.splitlines()
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_figures_are_those_of_the_result_files(document: Path):
    text = document.read_text(encoding="utf-8")
    assert text.count("<!-- figures: ") == len(render.BLOCK.findall(text)), "a marker is misspelt or has no end"
    assert text == render.rendered(text), "run `python bench/render.py`"


def table_of(title: str, document: str = "autointerp") -> dict[str, list[str]]:
    """The table of a section of a document: the other cells by the name in the first."""
    text = (REPO / "docs" / f"{document}.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line.strip("|") for line in section.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_explainer_is_in_its_table():
    found = table_of("Explainers")
    assert list(found) == list(EXPLAINERS)
    for name, (_, asks) in found.items():
        assert (asks == "yes") == issubclass(EXPLAINERS[name].__self__, Asking), name  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_is_in_its_table_with_its_metric_its_chance_and_its_tools(name: str):
    found = table_of("Scorers")
    assert list(found) == list(SCORERS)
    _, value, chance, needs = found[name]
    module = sys.modules[SCORERS[name].__module__]
    assert value in METRICS
    assert f'value="{value}"' in inspect.getsource(module)
    if hasattr(module, "CHANCE"):
        assert float(Fraction(chance)) == pytest.approx(module.CHANCE)
    tools = set(re.findall(r"tools\.(llm|reader|embedder|subject)", inspect.getsource(SCORERS[name])))
    assert set(needs.split(", ")) == {"judge" if tool == "llm" else tool for tool in tools}


def test_every_backend_and_every_cap_is_in_its_table():
    assert table_of("Backends", "llm").keys() == BACKENDS.keys()
    assert list(table_of("Caps", "llm")) == [f"--{name.replace('_', '-')}" for name in CAPS]


def test_every_null_is_in_its_table():
    assert list(table_of("Nulls")) == list(NULLS)


def test_no_small_judge_tells_explanations_from_shuffled_ones():
    """docs/autointerp.md says so of the result file beside it."""
    document = json.loads((REPO / "bench" / "results" / "interpret_local.json").read_text(encoding="utf-8"))
    found = [row["above"].get("shuffled") for row in document["settings"]["rows"]]
    lows = [above["interval"][0] for above in found if above is not None]
    assert lows
    assert max(lows) <= 0
