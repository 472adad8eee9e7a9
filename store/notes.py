"""What people write about latents: labels, ratings, lists, views, what was steered, in one SQLite file beside the runs.

Notes are of a dictionary (the id of its run), so a new index of it shows them too. Nothing is overwritten: an edit is a
new row and the newest is shown. The file is in WAL mode: one process writes while others read, and what a call has
returned from is still there if the process is killed.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from store.errors import UsageError
from store.notes_schema import MIGRATIONS, TABLES
from store.sqlite_file import BUSY_S, sqlite_errors, use_wal

FILE = "notes.sqlite"
MAX_TEXT = 20_000
"""Characters of one note."""


class Label(NamedTuple):
    """What somebody calls a latent."""

    latent: int
    author: str
    text: str
    made_at: str
    """UTC, ISO 8601."""


class Rating(NamedTuple):
    """How interpretable somebody finds a latent."""

    latent: int
    author: str
    value: int
    """1 (not at all) to 5."""
    made_at: str


class BlindRating(NamedTuple):
    """How well somebody finds that an explanation fits a latent, who was not told where it is from."""

    latent: int
    sheet: str
    """What was rated in one sitting, in an order of its own."""
    place: int
    """In that order, from 0."""
    run: str
    """That wrote the explanation."""
    explainer: str
    arm: str
    """`explanation`, or the null `shuffled`: it was written for another latent."""
    text: str
    author: str
    value: int
    """1 (not at all) to 5."""
    made_at: str


class Steered(NamedTuple):
    """One steering that was tried."""

    author: str
    settings: dict[str, Any]
    result: dict[str, Any]
    made_at: str


class View(NamedTuple):
    """A page of the dashboard in some state, under a name."""

    name: str
    page: str
    """As `app.web.navigation.SCREENS` names it."""
    query: str
    """Of its URL, as it stands behind the question mark."""
    author: str
    made_at: str


class Notes:
    """The notes of one folder of runs. Each call opens the file anew, so it may be shared by threads and processes."""

    def __init__(self, root: Path) -> None:
        """Notes in `root`; the file is made when something is first written."""
        self.path = root / FILE

    def label(self, sae: str, latent: int, text: str, author: str) -> None:
        """Call a latent something; an empty text takes the author's label back.

        Raises:
            UsageError: what is written cannot be kept, or the file cannot be written.
        """
        self.label_many(sae, [latent], text, author)

    def label_many(self, sae: str, latents: Sequence[int], text: str, author: str) -> None:
        """Call several latents the same, all of them or none; otherwise as `label`.

        Raises:
            UsageError: one of them cannot be labelled so, or the file cannot be written: none is.
        """
        row = {"sae": sae, "author": _short(author, "author"), "text": _short(text, "label")}
        self._add_all("labels", [{**row, "latent": _latent(latent)} for latent in latents])

    def labels(self, sae: str, latent: int | None = None) -> list[Label]:
        """Every author's newest label of each latent, or of one, in order of latent and author."""
        return [Label(*row) for row in self._newest("labels", "text", sae, latent) if row[2]]

    def versions(self, sae: str, latent: int) -> list[Label]:
        """Every label a latent ever had, oldest first."""
        query = "SELECT latent, author, text, made_at FROM labels WHERE sae = ? AND latent = ? ORDER BY id"
        return [Label(*row) for row in self._rows(query, (sae, latent))]

    def rate(self, sae: str, latent: int, value: int, author: str) -> None:
        """Rate a latent from 1 to 5.

        Raises:
            UsageError: the value is another, or the file cannot be written.
        """
        self._add("ratings", sae=sae, latent=latent, author=_short(author, "author"), value=_rated(value))

    def ratings(self, sae: str, latent: int | None = None) -> list[Rating]:
        """Every author's newest rating of each latent, or of one."""
        return [Rating(*row) for row in self._newest("ratings", "value", sae, latent)]

    def rate_blind(
        self,
        sae: str,
        latent: int,
        value: int,
        author: str,
        *,
        sheet: str,
        place: int,
        run: str,
        explainer: str,
        arm: str,
        text: str,
    ) -> None:
        """Rate an explanation from 1 to 5; what is kept beside it was not shown to the rater, but for its text.

        Raises:
            UsageError: the value is another, or the file cannot be written.
        """
        source = {"sheet": sheet, "place": place, "run": run, "explainer": explainer, "arm": arm, "text": text}
        who = _short(author, "author")
        self._add("blind_ratings", sae=sae, latent=latent, author=who, value=_rated(value), **source)

    def blind_ratings(self, sae: str) -> list[BlindRating]:
        """Every author's newest rating of each place of each sheet, in the order of sheets and places."""
        query = """
        SELECT latent, sheet, place, run, explainer, arm, text, author, value, made_at FROM blind_ratings WHERE id IN
            (SELECT max(id) FROM blind_ratings WHERE sae = ? GROUP BY sheet, place, author)
        ORDER BY sheet, place, author"""
        return [BlindRating(*row) for row in self._rows(query, (sae,), since=2)]

    def add_to_list(self, sae: str, name: str, latents: Sequence[int], author: str) -> None:
        """Put latents on a named list, which is made if there is none.

        Raises:
            UsageError: it has no name, or the file cannot be written.
        """
        self._enlist(sae, name, latents, author, is_in=True)

    def remove_from_list(self, sae: str, name: str, latents: Sequence[int], author: str) -> None:
        """Take latents off a list; that they were on it is kept."""
        self._enlist(sae, name, latents, author, is_in=False)

    def lists(self, sae: str) -> dict[str, list[int]]:
        """The latents on each list, in the order in which they came on it."""
        query = """
        SELECT name, latent FROM lists JOIN list_entries newest ON newest.list = lists.id
        WHERE sae = ? AND is_in AND newest.id =
            (SELECT max(id) FROM list_entries e WHERE e.list = newest.list AND e.latent = newest.latent)
        ORDER BY lists.id, newest.id"""
        found: dict[str, list[int]] = {}
        for (name,) in self._rows("SELECT name FROM lists WHERE sae = ? ORDER BY id", (sae,)):
            found[name] = []
        for name, latent in self._rows(query, (sae,)):
            found[name].append(latent)
        return found

    def save_view(self, sae: str, name: str, page: str, query: str, author: str) -> None:
        """Keep a state of a page under a name; another of that name is shown no longer.

        Raises:
            UsageError: it has no name, or the file cannot be written.
        """
        if not name.strip():
            raise UsageError("a view without a name cannot be found again: give it one")
        name, query, author = _short(name, "name"), _short(query, "view"), _short(author, "author")
        self._add("views", sae=sae, name=name, page=_short(page, "page"), query=query, author=author)

    def remove_view(self, sae: str, name: str, author: str) -> None:
        """Show the view of that name no longer; that it was there is kept."""
        self._add("views", sae=sae, name=_short(name, "name"), page="", query="", author=_short(author, "author"))

    def views(self, sae: str) -> list[View]:
        """The newest view of each name, in order of names."""
        query = """
        SELECT name, page, query, author, made_at FROM views
        WHERE id IN (SELECT max(id) FROM views WHERE sae = ? GROUP BY name) AND page != '' ORDER BY name"""
        return [View(*row) for row in self._rows(query, (sae,), since=3)]

    def record_steering(self, sae: str, settings: dict[str, Any], result: dict[str, Any], author: str) -> None:
        """Keep what was tried and what came of it.

        Raises:
            UsageError: either is no JSON, or the file cannot be written.
        """
        self._add("history", sae=sae, author=_short(author, "author"), settings=_json(settings), result=_json(result))

    def steerings(self, sae: str) -> list[Steered]:
        """All that was steered, oldest first."""
        query = "SELECT author, settings, result, made_at FROM history WHERE sae = ? ORDER BY id"
        return [Steered(a, json.loads(s), json.loads(r), at) for a, s, r, at in self._rows(query, (sae,))]

    def export(self) -> Iterator[dict[str, Any]]:
        """Every row of every table as it is kept, older versions too, with the `table` it is of."""
        with self._reading() as connection:
            if connection is None:
                return
            there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for table in (table for table in TABLES if table in there):
                cursor = connection.execute(f"SELECT * FROM {table} ORDER BY id")
                names = [column[0] for column in cursor.description]
                for row in cursor:
                    yield {"table": table, **dict(zip(names, row, strict=True))}

    def _enlist(self, sae: str, name: str, latents: Sequence[int], author: str, *, is_in: bool) -> None:
        if not name.strip():
            raise UsageError("a list without a name cannot be found again: give it one")
        values = [(_latent(latent), _short(author, "author"), is_in, _now()) for latent in latents]
        with self._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO lists (sae, name, made_at) VALUES (?, ?, ?)", (sae, _short(name, "name"), _now())
            )
            ((number,),) = connection.execute("SELECT id FROM lists WHERE sae = ? AND name = ?", (sae, name)).fetchall()
            connection.executemany(
                "INSERT INTO list_entries (list, latent, author, is_in, made_at) VALUES (?, ?, ?, ?, ?)",
                [(number, *value) for value in values],
            )

    def _add(self, table: str, **row: Any) -> None:
        if "latent" in row:
            row["latent"] = _latent(row["latent"])
        self._add_all(table, [row])

    def _add_all(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Rows with the same columns, in one transaction."""
        if not rows:
            return
        names = ", ".join((*rows[0], "made_at"))
        marks = ", ".join("?" * (len(rows[0]) + 1))
        with self._writing() as connection:
            now = _now()
            connection.executemany(
                f"INSERT INTO {table} ({names}) VALUES ({marks})", [(*row.values(), now) for row in rows]
            )

    def _newest(self, table: str, what: str, sae: str, latent: int | None) -> list[tuple]:
        query = f"""
        SELECT latent, author, {what}, made_at FROM {table} WHERE id IN
            (SELECT max(id) FROM {table} WHERE sae = ? AND (? IS NULL OR latent = ?) GROUP BY latent, author)
        ORDER BY latent, author"""
        return self._rows(query, (sae, latent, latent))

    def _rows(self, query: str, parameters: tuple, since: int = 1) -> list[tuple]:
        """What is there; nothing in a file of a version before `since`, which has not the table."""
        with self._reading(since) as connection:
            return connection.execute(query, parameters).fetchall() if connection else []

    @contextmanager
    def _reading(self, since: int = 1) -> Iterator[sqlite3.Connection | None]:
        """A connection that cannot write; None where nothing was ever written."""
        if not self.path.exists():
            yield None
            return
        with sqlite_errors(self.path), self._opened(f"{self.path.resolve().as_uri()}?mode=ro") as connection:
            version = self._version(connection)
            yield connection if version >= since else None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, there as a whole or not at all."""
        with sqlite_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._opened(f"{self.path.resolve().as_uri()}?mode=rwc") as connection:
                use_wal(connection)
                # WAL alone would keep what was written past a killed process, not past a power cut.
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    self._migrate(connection)
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    connection.rollback()
                    raise

    @contextmanager
    def _opened(self, uri: str) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = self._version(connection)
        for migration in MIGRATIONS[version:]:
            migration(connection)
        if version < len(MIGRATIONS):
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _version(self, connection: sqlite3.Connection) -> int:
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        if version > len(MIGRATIONS):
            raise UsageError(
                f"{self.path} has version {version}, this monosem reads {len(MIGRATIONS)}: install a newer monosem"
            )
        return version


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _latent(latent: int) -> int:
    if not 0 <= latent < 2**31:
        raise UsageError(f"there is no latent {latent}: choose 0 or above")
    return int(latent)


def _rated(value: int) -> int:
    if value not in range(1, 6):
        raise UsageError(f"a rating of {value} is none: choose 1 to 5")
    return value


def _short(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the {what} is no text (character {error.start} has no UTF-8): type it again") from error
    if len(text) > MAX_TEXT:
        raise UsageError(f"the {what} has {len(text):,} characters: write at most {MAX_TEXT:,}")
    return text


def _json(value: dict[str, Any]) -> str:
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"what was steered cannot be kept ({error}): give numbers, texts, lists and dicts") from error
