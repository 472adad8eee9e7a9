"""Every run folder of a root, the unfinished and the unreadable among them, and which are being worked on now."""

import platform
import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from store.errors import Busy, UsageError
from store.processes import began, began_at
from store.run import MANIFEST, Run, locked, read_run

OWNER = re.compile(r"(\d+) on (.*)", re.DOTALL)
CLOCK_S = 3.0
"""A manifest tells whole seconds, and the system's tell of a process's start is as coarse."""


class Broken(NamedTuple):
    """A folder that looks like a run and cannot be read as one."""

    folder: Path
    why: str


@dataclass(frozen=True)
class Survey:
    """All runs of a root, the newest first."""

    finished: tuple[Run, ...]
    unfinished: tuple[Run, ...]
    """Begun, and by now worked on, stopped or killed: `at_work` tells."""
    broken: tuple[Broken, ...]

    def of_kind(self, kind: str) -> list[Run]:
        """The finished runs of a kind."""
        return [run for run in self.finished if run.kind == kind]


class Owner(NamedTuple):
    """The process that began a run."""

    pid: int
    node: str


def survey(root: Path) -> Survey:
    """What is there; no run is left out, and none keeps the others from being seen."""
    finished, unfinished, broken = [], [], []
    for path in sorted(root.glob(f"[!.]*/[!.]*/{MANIFEST}")):
        found = _read(path)
        if isinstance(found, Broken):
            broken.append(found)
        elif found is not None:
            (finished if found.finished else unfinished).append(found)
    finished.sort(key=lambda run: run.manifest["finished_at"], reverse=True)
    unfinished.sort(key=lambda run: str(run.manifest.get("started_at", "")), reverse=True)
    return Survey(tuple(finished), tuple(unfinished), tuple(broken))


def owner(run: Run) -> Owner | None:
    """Which process began an unfinished run, where its manifest says so."""
    found = OWNER.fullmatch(str(run.manifest.get("process", "")))
    return Owner(int(found[1]), found[2]) if found else None


def at_work(run: Run) -> bool | None:
    """Whether somebody is making an unfinished run now; None where that is another machine's to tell.

    The process of its manifest has to live, to be no later one of the same number, and to hold the run's lock.
    """
    by = owner(run)
    if by is None:
        return False
    if by.node != platform.node():
        return None
    if began(by.pid) is None or _is_later(by.pid, run):
        return False
    try:
        # Only where its process lives, which nearly always holds it: nobody else is kept waiting by this look.
        with locked(run.folder):
            return False
    except (Busy, UsageError):
        return True


def _is_later(pid: int, run: Run) -> bool:
    """Whether the process began after the run did: its number was another's then."""
    at = began_at(pid)
    return at is not None and at > datetime.fromisoformat(run.manifest["started_at"]).timestamp() + CLOCK_S


def _read(path: Path) -> Run | Broken | None:
    """The run of a manifest; None where it is gone by now."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _as_of(path.parent, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _as_of(folder: Path, mtime_ns: int, n_bytes: int) -> Run | Broken:
    """A manifest as it was at a time: pages look often, and manifests seldom change."""
    del mtime_ns, n_bytes
    try:
        run = read_run(folder)
        if run.finished:
            datetime.fromisoformat(run.manifest["finished_at"])
        return run
    except UsageError as error:
        return Broken(folder, str(error))
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        return Broken(folder, f"its {MANIFEST} cannot be read ({error!r}): delete {folder} and make it again")
