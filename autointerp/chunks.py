"""Work on many latents: some at once, kept in chunks, so that a killed job goes on where it was."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from activations.progress import Progress
from autointerp.rows import Rows, columns
from store.index import part_path, write_part
from store.index_tables import SCHEMAS

T = TypeVar("T")
CHUNK = 256
"""Latents whose rows are in memory together, and at most lost by a kill; replies of language models are kept apart."""
AT_ONCE = 16
"""Latents that are worked on at the same time."""

Work = Callable[[T], Awaitable[Mapping[str, Rows]]]
"""From one item to its rows, by table."""


def work_through(
    folder: Path,
    tables: Sequence[str],
    items: Sequence[T],
    work: Work[T],
    calls: Callable[[set[str]], Rows],
    progress: Progress,
    what: str,
) -> None:
    """Write the rows that `work` makes of every item into the run in `folder`; chunks that are there are not redone.

    Args:
        folder: of the run.
        tables: that work makes rows of; each gets a part of every chunk, the last of them written last.
        items: in an order that is the same whenever the run goes on.
        work: on one item, some of which are under way at once.
        calls: the rows of the replies with these keys, for the table `calls`.
        progress: told of every item.
        what: it is called there.
    """
    # One event loop for all: clients of services live in the loop they were opened in.
    asyncio.run(_chunks(folder, tables, items, work, calls, progress, what))


async def _chunks(
    folder: Path,
    tables: Sequence[str],
    items: Sequence[T],
    work: Work[T],
    calls: Callable[[set[str]], Rows],
    progress: Progress,
    what: str,
) -> None:
    done = iter(progress(range(len(items)), len(items), what))
    for number, start in enumerate(range(0, len(items), CHUNK)):
        chunk = items[start : start + CHUNK]
        if part_path(folder, tables[-1], number).exists():
            for _ in chunk:
                next(done, None)
            continue
        found = await _all(chunk, work, lambda: next(done, None))
        rows = {table: [row for each in found for row in each.get(table, ())] for table in tables}
        rows["calls"] = calls(_keys(rows))
        for table in ("calls", *tables):
            write_part(folder, table, columns(rows[table], SCHEMAS[table].names), number)
    next(done, None)


def _keys(rows: Mapping[str, Rows]) -> set[str]:
    """Of every reply that rows were read from."""
    every = [row for table in rows.values() for row in table]
    single = {row["call"] for row in every if row.get("call")}
    return single.union(*(row["calls"] for row in every if row.get("calls")))


async def _all(chunk: Sequence[T], work: Work[T], ended: Callable[[], Any]) -> list[Mapping[str, Rows]]:
    """In order; the first failure stops the others."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> Mapping[str, Rows]:
        async with slots:
            found = await work(item)
        ended()
        return found

    tasks: list[asyncio.Task[Mapping[str, Rows]]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in chunk]
    except* Exception as errors:
        # One line for people: the first cause, not the group.
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
