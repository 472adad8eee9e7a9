"""Work on many latents: some at once, kept in chunks, so that a killed job goes on where it was."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from activations.progress import Progress, nothing
from autointerp.llm.config import at_once
from autointerp.llm.errors import TooLong
from autointerp.rows import Rows, columns
from autointerp.tools import Tools
from store.errors import UsageError
from store.index import part_path, write_part
from store.index_tables import SCHEMAS
from store.run import Run

T = TypeVar("T")
CHUNK = 256
"""Latents whose rows are written together, and at most lost by a kill; replies of language models are kept apart."""


Work = Callable[[T], Awaitable[Mapping[str, Rows]]]
"""From one item to its rows, by table."""


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[T]):
    """What is done with every item, and where its rows go."""

    folder: Path
    """Of the run."""
    tables: Sequence[str]
    """That rows are made of; each gets a part of every chunk, the last of them written last."""
    work: Work[T]
    calls: Callable[[set[str]], Rows]
    """The rows of the replies with these keys, for the table `calls`."""
    what: str
    """It is called where progress is shown."""
    at_once: int = 16
    """Items under way at the same time; the next begins as soon as one ends, whatever chunk it is of."""
    note: Callable[[], str] = nothing
    """Words to show beside progress."""

    @classmethod
    def of(cls, run: Run, tools: Tools, *, tables: Sequence[str], work: Work[T], what: str) -> "Stage[T]":
        """A stage of a run: as much at once as its language model takes, and what it has spent is told."""
        return cls(
            folder=run.folder,
            tables=tables,
            work=work,
            calls=lambda keys: [row | {"run": run.id} for row in tools.calls(keys)],
            what=what,
            at_once=at_once(tools.cfg.llm),
            note=tools.spent,
        )


def work_through(stage: Stage[T], items: Sequence[T], progress: Progress) -> None:
    """Write the rows of every item into the run; chunks that are there are not redone.

    Args:
        stage: what is done.
        items: in an order that is the same whenever the run goes on.
        progress: told of every item.
    """
    # One event loop for all: clients of services live in the loop they were opened in.
    asyncio.run(_all(stage, items, progress))


@dataclass
class _Chunk:
    """Rows of a chunk's items until all are there, and it is written."""

    number: int
    found: list[Mapping[str, Rows] | None] = field(default_factory=list)
    n_missing: int = 0

    @classmethod
    def of(cls, number: int, n_items: int) -> "_Chunk":
        return cls(number, [None] * n_items, n_items)

    def put(self, place: int, rows: Mapping[str, Rows], stage: Stage[Any]) -> None:
        self.found[place] = rows
        self.n_missing -= 1
        if not self.n_missing:
            self._write(stage)

    def _write(self, stage: Stage[Any]) -> None:
        rows = {table: [row for each in self.found if each for row in each.get(table, ())] for table in stage.tables}
        self.found.clear()
        rows["calls"] = stage.calls(_keys(rows))
        for table in ("calls", *stage.tables):
            write_part(stage.folder, table, columns(rows[table], SCHEMAS[table].names), self.number)


async def _all(stage: Stage[T], items: Sequence[T], progress: Progress) -> None:
    """The first failure stops the others."""
    done = iter(progress(range(len(items)), len(items), stage.what, note=stage.note))
    # The bar is there from the start: the first item of a slow service may take minutes.
    next(done, None)
    slots = asyncio.Semaphore(stage.at_once)

    async def one(item: T, place: int, chunk: _Chunk) -> None:
        try:
            chunk.put(place, await stage.work(item), stage)
        except TooLong as error:
            raise UsageError(f"{error}: choose smaller contexts with --half-window, or another --model") from error
        finally:
            slots.release()
        next(done, None)

    try:
        async with asyncio.TaskGroup() as group:
            for item, place, chunk in _missing(stage, items, done):
                await slots.acquire()
                group.create_task(one(item, place, chunk))
    except* Exception as errors:
        # One line for people: the first cause, not the group.
        raise errors.exceptions[0] from None


def _missing(stage: Stage[T], items: Sequence[T], done: Iterator[Any]) -> Iterable[tuple[T, int, _Chunk]]:
    """Items of the chunks that are not there yet, each with its place in its chunk."""
    for number, start in enumerate(range(0, len(items), CHUNK)):
        chunk = items[start : start + CHUNK]
        if part_path(stage.folder, stage.tables[-1], number).exists():
            for _ in chunk:
                next(done, None)
            continue
        gathered = _Chunk.of(number, len(chunk))
        for place, item in enumerate(chunk):
            yield item, place, gathered


def _keys(rows: Mapping[str, Rows]) -> set[str]:
    """Of every reply that rows were read from."""
    every = [row for table in rows.values() for row in table]
    single = {row["call"] for row in every if row.get("call")}
    return single.union(*(row["calls"] for row in every if row.get("calls")))
