"""A file of JSON lines that another process is still writing, read as it grows."""

import json
import os
import threading
from pathlib import Path
from typing import Any, BinaryIO


class Followed:
    """Lines of a growing file: each `read` takes in what is new, and a line only once it is whole.

    Safe to share between threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._begin(None)

    def _begin(self, inode: int | None) -> None:
        self._inode, self._offset = inode, 0
        self._lines: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """All whole lines so far, oldest first; none where there is no file.

        A file that took the place of the old one, as the log of a run that goes on does, is read from its beginning.
        A line that is no JSON object is left out: a process that was killed can leave half a line in the middle.
        """
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    self._take(file)
            except FileNotFoundError:
                self._begin(None)
            return self._lines.copy()

    def _take(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._begin(status.st_ino)
        file.seek(self._offset)
        new, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(new) + len(newline)
        self._lines += [line for line in map(_object, new.split(b"\n")) if line is not None]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
