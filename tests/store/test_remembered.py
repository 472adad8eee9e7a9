"""File hashes are remembered while a file stands still, and only then."""

import os
import time
from pathlib import Path

import pytest

from store import remembered
from store.errors import UsageError
from store.hashing import sha256_file
from store.remembered import REMEMBER_BYTES, remembered_sha256


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MONOSEM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / os.fsdecode(b"weights \xff")
    path.write_bytes(b"x" * REMEMBER_BYTES)
    return path


def receipts(file: Path) -> list[Path]:
    return list((file.parent / "cache").rglob("*.json"))


def settle(path: Path, seconds_ago: int = 60) -> None:
    then = time.time_ns() - seconds_ago * 10**9
    os.utime(path, ns=(then, then))


def test_a_file_that_stands_still_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch):
    settle(file)
    first = remembered_sha256(file)
    assert first == sha256_file(file)
    assert len(receipts(file)) == 1
    monkeypatch.setattr(remembered, "sha256_file", lambda path: pytest.fail(f"{path} was read again"))
    assert remembered_sha256(file) == first


def test_a_file_that_changed_is_read_again(file: Path):
    settle(file)
    first = remembered_sha256(file)
    file.write_bytes(b"y" * REMEMBER_BYTES)
    settle(file, 30)
    assert remembered_sha256(file) == sha256_file(file) != first


def test_a_file_just_written_is_not_remembered_yet(file: Path):
    remembered_sha256(file)
    assert receipts(file) == []


def test_small_files_need_no_receipt(file: Path):
    file.write_bytes(b"small")
    settle(file)
    assert remembered_sha256(file) == sha256_file(file)
    assert receipts(file) == []


def test_a_missing_file_is_one_clear_line(file: Path):
    with pytest.raises(UsageError, match="cannot be read"):
        remembered_sha256(file.parent / "nope")
