"""What the command line shows: progress bars, one line a stage, errors. Everything but results goes to stderr."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from activations.progress import nothing, one
from app.progress_file import ProgressFile

T = TypeVar("T")
console = Console(stderr=True, highlight=False)


def progress(
    items: Iterable[T],
    total: int,
    label: str,
    *,
    weigh: Callable[[Any], int] = one,
    note: Callable[[], str] = nothing,
) -> Iterator[T]:
    """A progress bar with elapsed and remaining time; one plain line where there is no terminal. `app.progress_file`
    tells others of it."""
    if not console.is_terminal:
        console.print(f"  {escape(label)} …")
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(label), total=total, note="")
        told = ProgressFile.asked_for(label, total)
        for item in items:
            yield item
            done, said = weigh(item), note()
            bar.update(task, advance=done, note=escape(said))
            told.advance(done, said)


class Stage:
    """One stage of a longer job, whose last line says what it produced and how long it took."""

    def __init__(self) -> None:
        self.produced = ""


@contextmanager
def stage(number: int, total: int, title: str) -> Iterator[Stage]:
    """Announce a stage; when it ends well, say what it produced."""
    console.print(f"[bold]{number}/{total}[/bold] {escape(title)}", soft_wrap=True)
    started, current = perf_counter(), Stage()
    yield current
    console.print(
        f"  [green]✓[/green] {escape(current.produced)} [dim]({perf_counter() - started:.1f} s)[/dim]", soft_wrap=True
    )


def fail(message: str) -> None:
    """One line about what the person can do."""
    console.print(f"[red]error:[/red] {escape(printable(message))}", soft_wrap=True)


def printable(text: str) -> str:
    """The text with what is no character to print, line ends and terminal commands among them, spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quiet_libraries() -> None:
    """Keep the libraries' own chatter out of the way of the progress bars."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    for name in ("transformers", "transformer_lens", "filelock", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
