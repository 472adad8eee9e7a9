"""Replies of language models by what they answer, and the ledger of calls, in one SQLite file beside the runs.

A reply is found by its key: the SHA-256 of the model's name and all of the request. What is stored is checked by its
own SHA-256 when it is read, so that a damaged reply is refused, not judged.
"""

import hashlib
import json
import sqlite3
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from store.errors import UsageError
from store.hashing import plain
from store.sqlite_file import SqliteFile

FILE = "replies.sqlite"
NEWEST = 500
"""Replies that averages are taken over."""


def _first(connection: sqlite3.Connection) -> None:
    """Replies; calls; what the caps of each job and day are held against."""
    for statement in (
        "CREATE TABLE replies (key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt TEXT NOT NULL, request TEXT NOT NULL,"
        " reply TEXT NOT NULL, checksum TEXT NOT NULL, made_at TEXT NOT NULL)",
        "CREATE TABLE calls (id INTEGER PRIMARY KEY, sent_at TEXT NOT NULL, job TEXT NOT NULL, model TEXT NOT NULL,"
        " prompt TEXT NOT NULL, outcome TEXT NOT NULL, n_tokens_in INTEGER, n_tokens_out INTEGER,"
        " n_tokens_cached INTEGER, usd REAL, seconds REAL)",
        "CREATE INDEX calls_of ON calls (model, prompt, outcome)",
        "CREATE TABLE totals (scope TEXT NOT NULL, name TEXT NOT NULL, n_calls INTEGER NOT NULL DEFAULT 0,"
        " n_tokens INTEGER NOT NULL DEFAULT 0, nano_usd INTEGER NOT NULL DEFAULT 0, n_open INTEGER NOT NULL DEFAULT 0,"
        " PRIMARY KEY (scope, name))",
    ):
        connection.execute(statement)


def _owned(connection: sqlite3.Connection) -> None:
    """Which request a call was for, and who waits for it."""
    for statement in (
        "ALTER TABLE calls ADD COLUMN key TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE calls ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX calls_under_way ON calls (owner) WHERE outcome = 'sent'",
        "CREATE INDEX calls_for ON calls (key)",
    ):
        connection.execute(statement)


MIGRATIONS = (_first, _owned)


def replies_file(root: Path) -> SqliteFile:
    """The file of replies and calls in `root`."""
    return SqliteFile(root / FILE, MIGRATIONS)


def reply_key(model: str, request: Any) -> str:
    """64 hex digits that name the reply of `model` to `request`, a frozen dataclass or what JSON can hold."""
    return _remembered_key(model, request) if isinstance(request, Hashable) else _key(model, request)


@lru_cache(maxsize=512)
def _remembered_key(model: str, request: Hashable) -> str:
    """Of a request under way: store, ledger and cache all ask for it."""
    return _key(model, request)


def _key(model: str, request: Any) -> str:
    return hashlib.sha256(_canonical({"model": model, "request": plain(request)}).encode()).hexdigest()


class Kept(NamedTuple):
    """One stored reply."""

    model: str
    request: dict[str, Any]
    reply: dict[str, Any]
    made_at: str
    """UTC, ISO 8601."""


class Replies:
    """Stored replies; a key is written once, and the first reply to it stays."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def __contains__(self, key: str) -> bool:
        return bool(self._file.rows("SELECT 1 FROM replies WHERE key = ?", (key,)))

    def get(self, key: str) -> Kept | None:
        """The reply to a key; None where there is none.

        Raises:
            UsageError: the row is not as it was written.
        """
        found = self._file.rows("SELECT model, request, reply, made_at, checksum FROM replies WHERE key = ?", (key,))
        if not found:
            return None
        ((model, request, reply, made_at, checksum),) = found
        if checksum != _checksum(key, model, request, reply):
            raise UsageError(
                f"the reply {key[:12]} in {self._file.path} is damaged: take it out and it is asked for again, by"
                f""" sqlite3 {self._file.path} "DELETE FROM replies WHERE key = '{key}'" """.rstrip()
            )
        return Kept(model, json.loads(request), json.loads(reply), made_at)

    def bytes_per_token(self, model: str) -> float | None:
        """Bytes of a request, as JSON, per token that `model` counted in it; None where none of its replies is kept."""
        return self._ratio("sum(length(CAST(request AS BLOB)))", "model = ?", model)

    def tokens_out(self, model: str, prompt: str) -> float | None:
        """Tokens of a reply of `model` to a prompt, on average; None where none is kept."""
        return self._ratio(
            "sum(json_extract(reply, '$.n_tokens_out'))", "model = ? AND prompt = ?", model, prompt, of="1"
        )

    def _ratio(
        self, top: str, where: str, *values: str, of: str = "json_extract(reply, '$.n_tokens_in')"
    ) -> float | None:
        newest = f"SELECT request, reply FROM replies WHERE {where} ORDER BY rowid DESC LIMIT {NEWEST}"
        ((over, under),) = self._file.rows(f"SELECT {top}, sum({of}) FROM ({newest})", values)
        return over / under if under else None

    def put(self, model: str, request: Any, reply: Mapping[str, Any]) -> str:
        """Keep a reply; the key it is found by.

        Raises:
            UsageError: the file cannot be written.
        """
        told = plain(request)
        asked, said = _canonical(told), _canonical(reply)
        key = reply_key(model, request)
        row = (key, model, told.get("prompt", ""), asked, said, _checksum(key, model, asked, said), now())
        with self._file.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return key


def now() -> str:
    """UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _canonical(value: Any) -> str:
    # ASCII, for half a surrogate pair in a model's words has no UTF-8.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _checksum(*texts: str | bytes) -> str:
    digest = hashlib.sha256()
    for text in texts:
        # Damage may have turned a text into bytes.
        data = text if isinstance(text, bytes) else text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
