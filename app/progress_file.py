"""How far a command is, in a small file that others read: written whole, and at most twice a second.

`MONOSEM_PROGRESS` names the file; without it nothing is written. It tells of the stage under way, and nothing of it is
needed to go on after a kill.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)
VARIABLE = "MONOSEM_PROGRESS"
EVERY_S = 0.5


class Progress(NamedTuple):
    """Of one stage."""

    stage: str
    done: int
    total: int
    note: str
    """Whatever the stage says of itself, such as what was spent."""
    at: float
    """When it was written, in seconds since 1970."""
    began_at: float
    """When the stage began."""

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the pace until now; None before anything is done."""
        return (self.at - self.began_at) * (1 / self.share - 1) if self.share > 0 else None


class ProgressFile:
    """Tells of one stage; without a file, nothing."""

    def __init__(self, path: Path | None, stage: str, total: int, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        began = clock()
        self._now = Progress(stage, 0, total, "", began, began)
        self._next = 0.0
        self.write()

    @classmethod
    def asked_for(cls, stage: str, total: int) -> "ProgressFile":
        """Where the environment says."""
        named = os.environ.get(VARIABLE)
        return cls(Path(named) if named else None, stage, total)

    def advance(self, by: int, note: str = "") -> None:
        """So much more is done."""
        if self._path is None:
            return
        self._now = self._now._replace(done=self._now.done + by, note=note, at=self._clock())
        if self._now.at >= self._next or self._now.done >= self._now.total:
            self.write()

    def write(self) -> None:
        """As it is now. A disk that takes nothing is told once: the work itself does not hang on this file."""
        if self._path is None:
            return
        scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        try:
            scratch.write_text(json.dumps(self._now._asdict()), encoding="utf-8")
            os.replace(scratch, self._path)
        except OSError as error:
            log.warning("progress is not written to %s: %s", self._path, error)
            self._path = None
        self._next = self._now.at + EVERY_S


def read_progress(path: Path) -> Progress | None:
    """What was written last; None where nothing was, or what is there was not written here."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        numbers = int(found["done"]), int(found["total"])
        return Progress(str(found["stage"]), *numbers, str(found["note"]), float(found["at"]), float(found["began_at"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
