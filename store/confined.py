"""SQL that people type: one SELECT, read-only, in sight of nothing but its own files, and with an end."""

import atexit
import contextlib
import functools
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from store.errors import UsageError

T = TypeVar("T")
Parameters = Sequence[Any] | Mapping[str, Any] | None
WRITES = frozenset({"enable_logging", "query", "query_table"})
"""What a SELECT of DuckDB 1 can write log files with, wherever the connection may read, and what can hide it in a text
that is put together as the query runs. Later versions refuse the first themselves."""
REFUSES_WRITES = int(duckdb.__version__.partition(".")[0]) > 1


def quoted(text: str) -> str:
    """As an SQL string."""
    return "'" + text.replace("'", "''") + "'"


@functools.cache
def spill_folder() -> Path:
    """Where queries too large for memory may spill: gone when the process ends."""
    folder = tempfile.mkdtemp(prefix="monosem-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def confine(connection: duckdb.DuckDBPyConnection, folders: Sequence[Path], spill: Path) -> None:
    """No file outside `folders`, no network, and no way back: the last two settings rule out changing the others."""
    for setting in (
        f"temp_directory = {quoted(spill.as_posix())}",
        f"allowed_directories = [{', '.join(quoted(folder.as_posix()) for folder in folders)}]",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")


def answer(
    cursor: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Parameters,
    fetch: Callable[[duckdb.DuckDBPyRelation], T],
    timeout_s: float | None = None,
) -> T:
    """The rows of one SELECT.

    Args:
        cursor: of its own for every call: one connection must not be used by two threads at once.
        query: in DuckDB's dialect.
        parameters: for its placeholders.
        fetch: rows to whatever is wanted.
        timeout_s: after which the query is stopped.

    Raises:
        UsageError: it is no single SELECT, or it took longer.
        duckdb.Error: DuckDB refuses it.
    """
    return answers(cursor, [query], parameters, fetch, timeout_s)[0]


def answers(
    cursor: duckdb.DuckDBPyConnection,
    queries: Sequence[str],
    parameters: Parameters,
    fetch: Callable[[duckdb.DuckDBPyRelation], T],
    timeout_s: float | None = None,
) -> list[T]:
    """The rows of each of some SELECTs, in one transaction; otherwise as `answer`."""
    statements = [one_select(cursor, query) for query in queries]
    # A SELECT may hold an INSERT since DuckDB 2: the transaction is what keeps it from writing.
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    with _stopped_after(cursor, timeout_s) as late:
        try:
            return [fetch(cursor.sql(statement, params=parameters)) for statement in statements]
        except duckdb.InterruptException as error:
            if not late.is_set():
                raise
            raise UsageError(
                f"the query took longer than {timeout_s:g} s and was stopped: ask for less of it, or allow more time"
            ) from error


def asked(
    cursor: duckdb.DuckDBPyConnection,
    queries: Sequence[str],
    parameters: Parameters,
    fetch: Callable[[duckdb.DuckDBPyRelation], T],
    timeout_s: float | None = None,
) -> list[T]:
    """`answers`, with DuckDB's own words in one line where it refuses; the cursor is closed.

    Raises:
        UsageError: a query cannot be answered, or took too long.
    """
    try:
        return answers(cursor, queries, parameters, fetch, timeout_s)
    except duckdb.Error as error:
        raise UsageError(f"the query cannot be answered: {refusal(error)}") from error
    finally:
        cursor.close()


def refusal(error: duckdb.Error) -> str:
    """DuckDB's own words in one line: the cause, and what it takes to have been meant; not the drawing of where."""
    cause, *rest = str(error).splitlines()
    meant = [line.strip() for line in rest if line.startswith(("Did you mean", "Candidate bindings"))]
    return " ".join([cause, *meant[:1]])


@contextlib.contextmanager
def _stopped_after(cursor: duckdb.DuckDBPyConnection, timeout_s: float | None) -> Iterator[threading.Event]:
    late = threading.Event()
    if timeout_s is None:
        yield late
        return

    def stop() -> None:
        late.set()
        cursor.interrupt()

    timer = threading.Timer(timeout_s, stop)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def one_select(cursor: duckdb.DuckDBPyConnection, query: str) -> duckdb.Statement:
    """The query's only statement: whatever is not a SELECT could write a file.

    Raises:
        UsageError: it is something else, or there are several.
    """
    statements = cursor.extract_statements(query)
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        found = ", ".join(statement.type.name for statement in statements) or "nothing"
        raise UsageError(f"the query cannot be answered: monosem takes one SELECT, DESCRIBE or SHOW, not {found}")
    if not REFUSES_WRITES:
        _refuse_writes(cursor, query)
    return statements[0]


def _refuse_writes(cursor: duckdb.DuckDBPyConnection, query: str) -> None:
    """As the parser reads the query: a name may be written in many ways.

    Raises:
        UsageError: it calls one of `WRITES`, or the parser cannot tell what it calls.
    """
    ((tree,),) = cursor.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()
    parsed = json.loads(tree)
    if parsed["error"]:
        raise UsageError(
            f"the query cannot be answered: DuckDB {duckdb.__version__} cannot tell what it calls "
            f"({parsed['error_message']}): write it otherwise, or install duckdb>=2"
        )
    for name in sorted(set(_called(parsed)) & WRITES):
        raise UsageError(
            f"the query cannot be answered: {name} can write files in DuckDB {duckdb.__version__}: leave it out, or "
            "install duckdb>=2"
        )


def _called(tree: Any) -> Iterator[str]:
    """Every function in a parsed query, in lower case."""
    if isinstance(tree, dict):
        if name := tree.get("function_name"):
            yield name.lower()
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from _called(each)
