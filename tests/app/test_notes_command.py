"""`monosem notes` on a dictionary."""

import json
import shutil
from pathlib import Path

import pytest

from app.cli import main


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    """Finished runs with a dictionary, to be written to."""
    shutil.copytree(tiny_root / "sae", tmp_path / "runs" / "sae")
    return tmp_path / "runs"


def run(root: Path, *arguments: str) -> int:
    return main(["notes", *arguments, "--root", str(root)])


def test_what_is_written_is_shown_and_exported(root: Path, capsys: pytest.CaptureFixture[str]):
    assert run(root, "label", "3", "names\x1b[2J", "--author", "ada") == 0
    assert run(root, "rate", "3", "4") == 0
    assert run(root, "list", "places", "3", "17") == 0
    assert run(root, "list", "places", "17", "--remove") == 0
    assert run(root, "show") == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert [line.split()[:2] for line in printed.splitlines()[1:]] == [["label", "3"], ["rating", "3"], ["list", "3"]]
    assert run(root, "export") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["table"] for row in rows] == ["labels", "ratings", "lists", *["list_entries"] * 3]
    assert rows[0]["text"] == "names\x1b[2J"


@pytest.mark.parametrize(
    "arguments", [("label", "64", "a"), ("rate", "3", "6"), ("list", " ", "3"), ("label", "3", "a", "--sae", "f" * 16)]
)
def test_what_cannot_be_is_one_line(root: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]):
    assert run(root, *arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (root / "notes.sqlite").exists()
