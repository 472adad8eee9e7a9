"""Files that are either whole or absent: written beside their final name, flushed, then renamed."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from store.errors import DiskFull, UsageError
from store.hashing import sha256_file

PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A scratch path beside `path`; on success it is flushed to disk and renamed to `path`, on failure removed.

    Raises:
        UsageError: it is a folder, the disk is full, or the folder cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file to write")
    scratch = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield scratch
            _flush(scratch)
            os.replace(scratch, path)
            _flush(path.parent)
        finally:
            scratch.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`; on success it is renamed to `path`, on failure removed with all that is in it.

    Raises:
        UsageError: there is something at `path` already, the disk is full, or the folder cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is there already: name a new folder with --out, or delete it")
    scratch = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with disk_errors(path):
        try:
            scratch.mkdir(parents=True)
            yield scratch
            os.replace(scratch, path)
            _flush(path.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no space left on the disk of {path}: {shutil.disk_usage(_existing(path)).free:,} bytes are free. "
                "Finished files stay: make room, or name another folder with --root (demo: --out), and run it again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            raise UsageError(
                f"cannot write {path}: {error.strerror}. Choose a folder you may write with --root (demo: --out)"
            ) from error
        raise


class FileEntry(NamedTuple):
    """What tells a file's bytes from any other's."""

    n_bytes: int
    sha256: str
    """64 hex digits."""


def file_entry(path: Path) -> FileEntry:
    """Size and checksum of a file that is there."""
    return FileEntry(path.stat().st_size, sha256_file(path))


def is_as_written(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the file is there with the bytes whose `sha256` the entry tells."""
    return path.exists() and sha256_file(path) == entry["sha256"]


def write_hashed(path: Path, parts: Sequence[bytes | memoryview]) -> FileEntry:
    """Write the parts one after the other; readers see the whole file or none. The checksum is taken meanwhile.

    Raises:
        UsageError: the disk is full, or the folder cannot be written.
    """
    digest = hashlib.sha256()

    def take_checksum() -> None:
        for part in parts:
            digest.update(part)

    with ThreadPoolExecutor(1) as other:
        # Both let go of the interpreter's lock: on two cores the checksum costs no time.
        taken = other.submit(take_checksum)
        with whole_file(path) as scratch, scratch.open("wb", buffering=0) as file:
            for part in parts:
                _write_all(file.fileno(), part)
        taken.result()
    return FileEntry(sum(len(part) for part in parts), digest.hexdigest())


def _write_all(handle: int, part: bytes | memoryview) -> None:
    left = memoryview(part)
    while left:
        left = left[os.write(handle, left) :]


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; readers see the old file or the new one, never a part."""
    with whole_file(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The JSON in `path`.

    Raises:
        UsageError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist: check the path") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not valid JSON ({error}): delete this file, and run the command that made it again"
        ) from error


def remove_partials(folder: Path) -> None:
    """Delete the scratch files that a killed process left in `folder` and below."""
    # With what a database writes beside its own file while it is open.
    for scratch in folder.rglob(f".*{PARTIAL}*"):
        scratch.unlink(missing_ok=True)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
