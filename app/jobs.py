"""Commands in the background: started, watched, stopped and started again, and alive without whoever started them.

A job is a folder in ROOT/.jobs: what was asked (`job.json`), which process does it, how far it is, what it printed, and
how it ended. A stopped job goes on when its command is given again, as every command does.
"""

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from app.job_process import ASKED, ENDED, PROCESS
from app.progress_file import VARIABLE, Progress, read_progress
from store.errors import UsageError
from store.files import disk_errors, read_json, write_json
from store.processes import began

FOLDER = ".jobs"
OUTPUT, PROGRESS, STOP = "output.log", "progress.json", "stop.json"
START_S = 60.0
"""Longest that a process may take to say which it is."""
TAIL_BYTES = 20_000
INTERRUPTED = 130
State = Literal["starting", "running", "finished", "failed", "stopped", "killed", "elsewhere"]
ALIVE = ("starting", "running")
LEFT = ("failed", "stopped", "killed")
"""States of which there may be work left: the same command again goes on from what is finished."""


@dataclass(frozen=True)
class Job:
    """One job, as its folder has it when it is looked at."""

    folder: Path
    asked: dict[str, Any]

    @property
    def id(self) -> str:
        """Never used again."""
        return self.folder.name

    @property
    def argv(self) -> list[str]:
        """After `monosem`."""
        return self.asked["argv"]

    @property
    def command(self) -> str:
        """To be typed in a shell."""
        return shell(self.argv)

    @property
    def started_at(self) -> str:
        """UTC, ISO 8601."""
        return self.asked["started_at"]

    @property
    def goes_on_from(self) -> str | None:
        """The job whose command was given again."""
        return self.asked.get("goes_on_from")

    @property
    def node(self) -> str:
        """The machine it was started on."""
        return self.asked["node"]

    @property
    def pid(self) -> int | None:
        """Of its process, once it has said so."""
        return self._process.get("pid")

    @cached_property
    def _process(self) -> dict[str, Any]:
        return _told(self.folder / PROCESS)

    @cached_property
    def ended(self) -> dict[str, Any]:
        """`status` and `ended_at`; nothing while it runs, or if it was killed."""
        return _told(self.folder / ENDED)

    @cached_property
    def stop_asked(self) -> bool:
        """Whether somebody asked it to stop."""
        return (self.folder / STOP).exists()

    @cached_property
    def state(self) -> State:
        """What became of it."""
        if self.ended:
            return _ended(self.ended["status"])
        if self.node != platform.node():
            return "elsewhere"
        if self.pid is None:
            age = time.time() - datetime.fromisoformat(self.started_at).timestamp()
            return "starting" if age < START_S and not self.stop_asked else "failed"
        if began(self.pid) == self._process.get("began"):
            return "running"
        # It may have said how it ended since that was looked for.
        late = _told(self.folder / ENDED)
        if late:
            return _ended(late["status"])
        return "stopped" if self.stop_asked else "killed"

    @property
    def progress(self) -> Progress | None:
        """Of the stage under way, or the last one."""
        return read_progress(self.folder / PROGRESS)

    def tail(self, n_lines: int = 40) -> list[str]:
        """The last lines it printed."""
        return _tail(self.folder / OUTPUT, n_lines)

    @property
    def last_line(self) -> str:
        """The last line it printed that is not empty."""
        return next((line.strip() for line in reversed(self.tail()) if line.strip()), "")


def shell(argv: Sequence[str]) -> str:
    """The command as it is typed in a shell."""
    return shlex.join(["monosem", *argv])


def start(root: Path, argv: Sequence[str], goes_on_from: str | None = None) -> Job:
    """Start `monosem` with `argv`, which `app.job_commands.arguments` made, as a process that outlives this one.

    Raises:
        UsageError: it is none of the commands that may be started, or the folder cannot be written.
    """
    # Here, not above: looking at jobs, which the first page does, needs none of what explains and scores.
    from app.job_commands import COMMANDS

    if not argv or argv[0] not in COMMANDS:
        raise UsageError(f"'{argv[0] if argv else ''}' is not started in the background: {', '.join(COMMANDS)} are")
    at = datetime.now(UTC)
    folder = root.resolve() / FOLDER / f"{at:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"
    with disk_errors(folder):
        folder.mkdir(parents=True)
    asked = {"argv": list(argv), "started_at": at.isoformat(timespec="seconds"), "node": platform.node()}
    asked |= {"goes_on_from": goes_on_from} if goes_on_from else {}
    # Before the process, so that there is none of which nothing is known.
    write_json(folder / ASKED, asked)
    with (folder / OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.job_process", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Its own session: neither the server's end nor a key pressed there ends it.
            start_new_session=True,
            env={**os.environ, VARIABLE: str(folder / PROGRESS), "PYTHONUNBUFFERED": "1"},
        )
    # Taken leave of when it ends, if this process still lives then.
    threading.Thread(target=process.wait, name=f"job {folder.name}", daemon=True).start()
    return Job(folder, asked)


def jobs(root: Path) -> list[Job]:
    """All jobs, the newest first."""
    found = (_job(path.parent) for path in (root / FOLDER).glob(f"*/{ASKED}"))
    return sorted((job for job in found if job), key=lambda job: job.id, reverse=True)


def job(root: Path, name: str) -> Job:
    """One job.

    Raises:
        UsageError: there is no such job.
    """
    found = next((each for each in jobs(root) if each.id == name), None)
    if found is None:
        raise UsageError(f"no job '{name}' in {root / FOLDER}: choose one that is listed")
    return found


def stop(root: Path, name: str) -> None:
    """Ask a job to stop, as Ctrl-C does; asked again, end it. What is finished stays.

    Raises:
        UsageError: there is no such job.
    """
    found = job(root, name)
    if found.state not in ALIVE or found.pid is None:
        return
    how = signal.SIGTERM if found.stop_asked else signal.SIGINT
    write_json(found.folder / STOP, {"asked_at": datetime.now(UTC).isoformat(timespec="seconds")})
    if began(found.pid) != found._process.get("began"):
        return
    with suppress(ProcessLookupError):  # it has ended meanwhile
        # Its own session is a group of the same number: whatever it started stops with it.
        os.killpg(found.pid, how)


def resume(root: Path, name: str) -> Job:
    """Give the command of a job again: it goes on from what is finished.

    Raises:
        UsageError: there is no such job, it is at work, or its command may not be started.
    """
    found = job(root, name)
    if found.state in ALIVE:
        raise UsageError(f"job {name} is at work: wait for it, or stop it first")
    return start(root, found.argv, goes_on_from=name)


def forget(root: Path, name: str) -> None:
    """Take a job off the list, with what it printed; the runs it made stay.

    Raises:
        UsageError: there is no such job, or it is at work.
    """
    found = job(root, name)
    if found.state in ALIVE:
        raise UsageError(f"job {name} is at work: stop it first")
    with disk_errors(found.folder):
        shutil.rmtree(found.folder)


def _ended(status: int) -> State:
    if status == INTERRUPTED:
        return "stopped"
    return "finished" if status == 0 else "failed"


def _job(folder: Path) -> Job | None:
    asked = _told(folder / ASKED)
    return Job(folder, asked) if {"argv", "started_at", "node"} <= asked.keys() else None


def _told(path: Path) -> dict[str, Any]:
    """What a file of a job says; nothing where it is not there, or was put there by somebody else."""
    try:
        found = read_json(path)
    except (UsageError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _tail(path: Path, n_lines: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = file.read()
    except OSError:
        return []
    return text.decode(errors="replace").splitlines()[-n_lines:]
