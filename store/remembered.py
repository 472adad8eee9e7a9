"""SHA-256 of files that are read again and again, remembered while they stand still."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store.assets import cache_dir
from store.errors import UsageError
from store.files import read_json, write_json
from store.hashing import content_hash, sha256_file

log = logging.getLogger(__name__)
REMEMBER_BYTES = 1 << 20
"""Smaller files are hashed each time: that is quicker than a receipt that is flushed to disk."""
SETTLED_NS = 2_000_000_000
"""A file changed less than this ago may change again within one tick of its clock: it is not remembered yet."""


def remembered_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits; from a receipt in the cache while path, size and time stand still.

    Raises:
        UsageError: the file is missing or cannot be read.
    """
    try:
        before = path.stat()
        if before.st_size < REMEMBER_BYTES:
            return sha256_file(path)
        # Escaped: a name on disk may hold bytes that are no text.
        seen = {"path": ascii(str(path.resolve())), "size": before.st_size, "mtime_ns": before.st_mtime_ns}
        receipt = cache_dir() / "hashes" / f"{content_hash(seen['path'])}.json"
        known: dict[str, Any] = read_json(receipt) if receipt.exists() else {}
        if {key: known.get(key) for key in seen} == seen:
            return known["sha256"]
        digest = sha256_file(path)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror or error}): check the path and who may read"
        ) from error
    if time.time_ns() - before.st_mtime_ns > SETTLED_NS:
        try:
            write_json(receipt, {**seen, "sha256": digest})
        except UsageError as error:
            # A cache that cannot be written costs time, and nothing else.
            log.warning("the checksum of %s is not remembered, set MONOSEM_CACHE to another folder: %s", path, error)
    return digest


def remembered_hash(folder: Path, patterns: Sequence[str]) -> str:
    """Hash over the files of a folder that fit any of the patterns, by name."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return content_hash({path.name: remembered_sha256(path) for path in files})
