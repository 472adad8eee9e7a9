"""Every command and snippet in the documents runs; every figure in them comes from a result file."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from app.cli import main
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


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "bash")], ids=lambda d: d.name)
def test_commands_run_in_the_order_they_are_shown(document: Path, workspace: Path):
    lines = [line for block in blocks(document, "bash") for line in block.strip().splitlines()]
    assert lines
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "monosem", line
        assert main(words[1:]) == 0, line


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "python")], ids=lambda d: d.name)
def test_snippets_run(document: Path, workspace: Path):
    for block in blocks(document, "python"):
        exec(compile(block, document.name, "exec"), {})  # noqa: S102 - the documents are ours


@pytest.mark.parametrize("notebook", sorted((REPO / "docs").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_run_from_top_to_bottom(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    names: dict = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), notebook.name, "exec"), names)  # noqa: S102 - the documents are ours


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
    assert {"make check", "make test", "make test-slow"} <= {line.strip() for line in script.splitlines()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_figures_are_those_of_the_result_files(document: Path):
    text = document.read_text(encoding="utf-8")
    assert text.count("<!-- figures: ") == len(render.BLOCK.findall(text)), "a marker is misspelt or has no end"
    assert text == render.rendered(text), "run `python bench/render.py`"
