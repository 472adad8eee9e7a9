"""Reads the current version of a published index: SQL over its tables, and one latent's events by exact offsets."""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from store import layout
from store.answers import writing
from store.confined import Parameters, asked, confine, quoted, spill_folder
from store.errors import UsageError
from store.index import CURRENT, GROUP_ROWS, PARTS, part_path
from store.index_tables import PUBLISHED, SCHEMAS
from store.published import Published, opened
from store.run import Run, find_run, read_run
from store.tables import DOCUMENTS, SEQUENCES
from store.token_map import TokenMap

log = logging.getLogger(__name__)
T = TypeVar("T")
TEXT_FOLDER = "text"
READERS = 4
"""Latents whose events are read at once."""
MOST_TITLES = 10_000
"""Documents whose titles are remembered."""
TITLES = "SELECT doc_id, source, title, split FROM titles WHERE doc_id IN (SELECT unnest(?::BIGINT[]))"
VIEWS = (*PUBLISHED, "features", "runs")
"""Tables of the published file that a query sees by their own names."""


class Fired(NamedTuple):
    """The events kept of one latent, in order of sequence and position."""

    seq: np.ndarray
    pos: np.ndarray
    doc_id: np.ndarray
    value: np.ndarray


class EventRows(NamedTuple):
    """Where the events kept of one latent lie: columns of `latents`."""

    part: int
    first_row: int
    n_events: int


@lru_cache(maxsize=256)
def _metadata(path: Path, mtime_ns: int) -> pq.FileMetaData:
    del mtime_ns  # another file than that of another time
    return pq.read_metadata(path)


def _groups(path: Path, mtime_ns: int, groups: tuple[int, ...]) -> pa.Table:
    """Row groups of a part of `events`."""
    with pq.ParquetFile(path, metadata=_metadata(path, mtime_ns), memory_map=True) as file:
        return file.read_row_groups(list(groups), columns=list(Fired._fields), use_threads=False)


_recent_groups = lru_cache(maxsize=16)(_groups)
"""Single ones, a third of a megabyte each, are read once for many latents that fire seldom and lie together."""


class FeatureIndex:
    """One index, always at its newest version; safe to share between threads.

    Tables are those of `store.index_tables`, and `events documents sequences`, which are read from where they lie.
    """

    def __init__(self, folder: Path, timeout_s: float | None = None) -> None:
        """Open the index in `folder`; a query that takes longer than `timeout_s` is stopped.

        Raises:
            UsageError: nothing is published there, or it was made by an older version.
        """
        self.folder, self.timeout_s = folder, timeout_s
        self._lock = threading.Lock()
        self._titles: dict[int, dict[str, Any]] = {}
        self._follows = True
        self._version = self._newest()
        self._published = self._open(self._version)

    def version(self) -> str:
        """Name of the file now published: changes whenever there is something new to read, unless it is pinned."""
        return self._newest() if self._follows else self._version

    def _newest(self) -> str:
        try:
            return (self.folder / CURRENT).read_text(encoding="utf-8").strip()
        except FileNotFoundError as error:
            raise UsageError(f"{self.folder} has no published index: run `monosem index` again") from error

    def pinned(self) -> "FeatureIndex":
        """The version that is newest now, and that one whatever is published later: for answers that belong together.

        Raises:
            UsageError: nothing is published there any more.
        """
        with self._lock:
            if self._follows:
                self._follow()
            twin = copy(self)
        twin._follows = False
        return twin

    @cached_property
    def run(self) -> Run:
        """The run that made it."""
        return read_run(self.folder)

    @cached_property
    def harvest(self) -> Run:
        """The run with its documents and tokens: the harvest it is of, or the text that was imported with it.

        Raises:
            UsageError: it is no longer there.
        """
        kind = "activations" if "activations" in self.run.inputs else "text"
        return find_run(self.run.root, self.run.inputs[kind], kind)

    @cached_property
    def tokens(self) -> TokenMap:
        """Every token and document."""
        return TokenMap(self.folder / TEXT_FOLDER)

    def sql(self, query: str, parameters: Parameters = None) -> pd.DataFrame:
        """Rows of one SELECT on the newest version, as a data frame.

        Raises:
            UsageError: DuckDB refuses the query, with its own words; or it took too long.
        """
        return self._run([query], parameters, duckdb.DuckDBPyRelation.df)[0]

    def arrow(self, query: str, parameters: Parameters = None) -> pa.Table:
        """Rows of one SELECT as an Arrow table: list columns stay lists and missing values stay missing.

        Raises:
            UsageError: DuckDB refuses the query, with its own words; or it took too long.
        """
        return self.arrows([query], parameters)[0]

    def arrows(self, queries: Sequence[str], parameters: Parameters = None) -> list[pa.Table]:
        """Rows of several SELECTs with the same parameters, all of one version: sooner than one by one.

        Raises:
            UsageError: as `arrow`.
        """
        return self._run(queries, parameters, duckdb.DuckDBPyRelation.to_arrow_table)

    def write(self, query: str, file: Path, form: str) -> int:
        """Write the rows of one SELECT as a file, whole or not at all, some rows in memory at a time; how many.

        Args:
            query: one SELECT.
            file: to write; whatever is there is replaced.
            form: a name in `store.answers.WRITERS`.

        Raises:
            UsageError: DuckDB refuses the query, it took too long, or the file cannot be written.
        """
        return self._run([query], None, writing(file, form))[0]

    def events(self, latent: int) -> Fired:
        """The events kept of `latent`, read from the few row groups that hold them.

        Raises:
            UsageError: there is no such latent, or its part is damaged.
        """
        return self.events_of([latent])[0]

    def events_of(self, latents: Sequence[int]) -> list[Fired]:
        """The events kept of each of some latents: sooner than one after the other.

        Raises:
            UsageError: there is no such latent, or a part is damaged.
        """
        query = "SELECT latent, part, first_row, n_events FROM latents WHERE latent IN (SELECT unnest(?::BIGINT[]))"
        where = {row["latent"]: row for row in self.arrow(query, [list(latents)]).to_pylist()}
        for latent in latents:
            if latent not in where:
                raise UsageError(f"there is no latent {latent}: choose 0 to {self.n_latents - 1}")
        return self.events_at([EventRows(*(where[latent][name] for name in EventRows._fields)) for latent in latents])

    def events_at(self, rows: Sequence[EventRows]) -> list[Fired]:
        """The events kept of some latents of which it is known where they lie.

        Raises:
            UsageError: a part is damaged.
        """
        if sum(each.n_events for each in rows) <= READERS * GROUP_ROWS:
            return [self._fired(each) for each in rows]  # sooner than threads are started
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self._fired, rows))

    def _fired(self, rows: EventRows) -> Fired:
        part, first_row, n_events = rows
        if not n_events:
            return Fired(*(np.empty(0, kind) for kind in (np.int32, np.int32, np.int32, np.float32)))
        groups = list(range(first_row // GROUP_ROWS, (first_row + n_events - 1) // GROUP_ROWS + 1))
        table = self._part(part, groups).slice(first_row - groups[0] * GROUP_ROWS, n_events)
        return Fired(*(table.column(name).to_numpy() for name in Fired._fields))

    def titles(self, doc_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """`doc_id source title split` of documents, by `doc_id`: those asked for last are remembered."""
        with self._lock:
            if len(self._titles) > MOST_TITLES:
                self._titles.clear()
            known = {doc_id: self._titles[doc_id] for doc_id in doc_ids if doc_id in self._titles}
        if missing := [doc_id for doc_id in doc_ids if doc_id not in known]:
            found = {row["doc_id"]: row for row in self.arrow(TITLES, [missing]).to_pylist()}
            known |= found
            with self._lock:
                self._titles |= found
        return known

    @cached_property
    def n_latents(self) -> int:
        """Latents of the dictionary, dead ones included."""
        return self.arrow("SELECT count(*) AS n FROM latents").to_pylist()[0]["n"]

    def _part(self, number: int, groups: list[int]) -> pa.Table:
        path = part_path(self.folder, "events", number)
        try:
            read = _recent_groups if len(groups) == 1 else _groups
            return read(path, path.stat().st_mtime_ns, tuple(groups))
        except (OSError, pa.ArrowException) as error:
            raise UsageError(
                f"{path} is damaged or missing ({str(error).splitlines()[0]}): "
                f"mend it with `monosem index --repair {self.folder.name}`"
            ) from error

    def _run(
        self, queries: Sequence[str], parameters: Parameters, fetch: Callable[[duckdb.DuckDBPyRelation], T]
    ) -> list[T]:
        return asked(self._cursor(), queries, parameters, fetch, self.timeout_s)

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor of its own for every call: one connection must not be used by two threads at once."""
        with self._lock:
            if self._follows:
                self._follow()
            published = self._published
        with published.lock:
            return published.connection.cursor()

    def _follow(self) -> None:
        """Take up the newest version."""
        if (version := self._newest()) != self._version:
            # Not closed: a thread may be in the middle of an answer. It goes with its last cursor.
            self._published, self._version = self._open(version), version

    def _open(self, version: str) -> Published:
        try:
            published = opened(self.folder / version)
            with published.lock:
                if not published.ready:
                    published.views(VIEWS)
                    self._prepare(published.connection)
                    published.ready = True
            return published
        except FileNotFoundError as error:
            # Published again, twice, between the look at the pointer and this one.
            if (now := self._newest()) != version:
                return self._open(now)
            raise UsageError(f"{self.folder / version} is gone: run `monosem index` again") from error
        except (OSError, duckdb.Error) as error:
            raise UsageError(
                f"{self.folder / version} cannot be opened ({str(error).splitlines()[0]}): run `monosem index` again"
            ) from error

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Add what is read where it lies, and confine the connection to it."""
        folders = [self.folder.resolve()]
        self._view(connection, "events", (self.folder / PARTS).resolve().glob("events-*.parquet"))
        for name in ("examples", "calls"):
            paths = [path for folder in self._annotations(connection) for path in folder.glob(f"{name}-*.parquet")]
            folders += {path.parent for path in paths}
            self._view(connection, name, paths)
            if not paths:
                # A table, not a registered view of it: cursors do not see those.
                connection.register("nothing", SCHEMAS[name].empty_table())
                connection.execute(f"CREATE TABLE {name} AS SELECT * FROM nothing")
                connection.unregister("nothing")
        try:
            harvest = self.harvest
        except UsageError:
            pass  # what is of the index alone can be asked without it
        else:
            folders.append(harvest.folder.resolve())
            self._view(connection, "documents", layout.document_parts(harvest.folder.resolve()))
            self._view(connection, "sequences", layout.token_parts(harvest.folder.resolve()))
        confine(connection, folders, spill_folder())

    def _annotations(self, connection: duckdb.DuckDBPyConnection) -> list[Path]:
        """Where the runs that were published with it have what is read where it lies."""
        rows = connection.execute("SELECT kind, id FROM runs WHERE kind IN ('explanations', 'scores')").fetchall()
        root = self.folder.resolve().parent.parent
        return [root / kind / number / PARTS for kind, number in rows]

    def _view(self, connection: duckdb.DuckDBPyConnection, name: str, paths: Iterable[Path]) -> None:
        files = ", ".join(quoted(path.as_posix()) for path in sorted(paths))
        schema = {"documents": DOCUMENTS, "sequences": SEQUENCES}.get(name) or SCHEMAS[name]
        if not files:
            return
        try:
            connection.execute(f"CREATE VIEW {name} AS SELECT {', '.join(schema.names)} FROM read_parquet([{files}])")
        except duckdb.Error as error:
            # What is whole can be asked all the same.
            log.warning(
                "no table %s: %s; `monosem verify %s` names what is damaged",
                name,
                str(error).splitlines()[0],
                self.folder.name,
            )
