"""A published file, opened once in a process: DuckDB 1.4 lets one process attach a file once, whoever asks."""

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import duckdb

from store.confined import quoted

_opened: "weakref.WeakValueDictionary[tuple[str, int, int], Published]" = weakref.WeakValueDictionary()
_lock = threading.Lock()


class Published:
    """A file attached read-only to a database in memory, which is confined once its views are made."""

    def __init__(self, file: Path) -> None:
        self.lock = threading.Lock()
        self.ready = False
        """Whether whoever opened it first made its views."""
        self.connection = duckdb.connect()
        self.connection.execute(f"ATTACH {quoted(file.as_posix())} AS published (READ_ONLY)")

    def ids(self) -> set[str]:
        """Ids of the runs that it is made of."""
        with self.lock:
            cursor = self.connection.cursor()
        return {row[0] for row in cursor.execute("SELECT id FROM published.runs").fetchall()}

    def views(self, names: Sequence[str]) -> None:
        """Let tables be asked for by their own names."""
        for name in names:
            self.connection.execute(f"CREATE VIEW {name} AS FROM published.{name}")


def opened(file: Path) -> Published:
    """The published file, shared by all that have it open.

    Raises:
        OSError: there is no such file.
        duckdb.Error: it is no database.
    """
    status = file.stat()
    key = (file.resolve().as_posix(), status.st_ino, status.st_mtime_ns)
    with _lock:
        found = _opened.get(key)
        if found is None:
            found = _opened[key] = Published(file)
        return found
