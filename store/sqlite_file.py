"""One SQLite file that many processes write: opened in WAL mode, brought to its version, and its errors in one line."""

import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from store.errors import UsageError

BUSY_S = 10.0
"""How long a writer waits for another."""


class SqliteFile:
    """A connection that stays open for a process, whose threads take turns; the file is made when it is first used.

    What a call has returned from is there after a kill. A power cut may lose the newest of it, never older rows: a job
    writes several rows for each call of a model, and waiting for the disk every time would cost more than they are
    worth.
    """

    def __init__(self, path: Path, migrations: Sequence[Callable[[sqlite3.Connection], None]]) -> None:
        self.path = path
        self._migrations = migrations
        self._turn = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, there as a whole or not at all; other processes' transactions come before or after it.

        Raises:
            UsageError: the file cannot be used or written.
        """
        with self._turn, sqlite_errors(self.path):
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple]:
        """What a query finds.

        Raises:
            UsageError: the file cannot be used.
        """
        with self._turn, sqlite_errors(self.path):
            return self._open().execute(query, parameters).fetchall()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            weakref.finalize(self, connection.close)
            use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            migrate(connection, self._migrations, self.path)
            self._connection = connection
        return self._connection


def migrate(
    connection: sqlite3.Connection, migrations: Sequence[Callable[[sqlite3.Connection], None]], path: Path
) -> None:
    """Bring the file to the newest version, which is how many migrations were applied.

    Raises:
        UsageError: it was written by a newer monosem.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        if version > len(migrations):
            raise UsageError(f"{path} has version {version}, this monosem reads {len(migrations)}: install a newer one")
        for migration in migrations[version:]:
            migration(connection)
        if version < len(migrations):
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL, however many begin at once: SQLite does not wait for another process that does the same,
    for as it reads before it locks, two that waited for one another would wait for ever."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """One line for what SQLite, or the disk, does not do.

    Raises:
        UsageError: either failed.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} cannot be used ({error}): {_way_out(error)}") from error
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror}): choose another --root") from error


def _way_out(error: sqlite3.DatabaseError) -> str:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return "another process is writing; try again"
    if isinstance(error, sqlite3.OperationalError):
        return "make the folder and the file writable, and room on the disk"
    return "put it aside (with its -wal and -shm) and go on, or bring back a copy of it"
