"""The asking side: a worker that is started when it is needed, and again when it has died."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

from app.generator.job import LAST, Job, WorkerDied
from app.generator.plain import inspection, line, steering
from app.inspection import Inspection

if TYPE_CHECKING:
    from app.steered import Side, Steering
    from autointerp.steer_config import SteerEdit
    from autointerp.sweep import SweepConfig

T = TypeVar("T")
CLOSING_SECONDS = 5.0
"""What a worker that is told to end may take before it is killed."""
STOP_SECONDS = 10.0
"""What a worker may take to drop what it is doing, a token of a large model: one that takes longer hangs."""
SLOW_STOP_SECONDS = {"sweep": 120.0}
"""The same, by name, for what is dropped only between longer steps."""
LOADING_SECONDS = 180.0
"""The same for a worker that has answered nothing yet: it may be loading the model."""


@final
class Worker:
    """The model of an index in a process of its own: any number of threads ask, and are answered in turn."""

    def __init__(self, root: Path, index: str) -> None:
        """Ask the model of the index `index` under `root`; nothing is started before the first request."""
        self._root, self._index = root, index
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._life: _Life | None = None

    @property
    def pid(self) -> int | None:
        """Of the process that runs; None if none does."""
        life = self._life
        return life.process.pid if life is not None and life.process.poll() is None else None

    def steer(
        self,
        prompt: str,
        latent: "int | Sequence[int] | Sequence[SteerEdit]",
        strength: float = 1.0,
        *,
        n_tokens: int = 40,
        temperature: float = 0.7,
        seed: int = 0,
        chat: bool = True,
        sides: "Sequence[Side]" = ("steered", "clean"),
        **edit: Any,
    ) -> "Job[Steering]":
        """Begin what `Workbench.steer` does, with the same arguments, and `sides` as `Workbench.steps` has it.

        Raises:
            UsageError: edits that have no such setting; what else is refused is raised by the job's `result`.
        """
        from autointerp.steer_config import edits_of

        request = {"prompt": prompt, "edits": [asdict(each) for each in edits_of(latent, strength, **edit)]}
        settings = {"n_tokens": n_tokens, "temperature": temperature, "seed": seed, "chat": chat}
        settings["sides"] = list(sides)
        return self.ask("steer", steering, **request, **settings)

    def sweep(self, cfg: "SweepConfig") -> Job[str]:
        """Begin what `Workbench.sweep` does; the result is the id of the run."""
        return self.ask("sweep", lambda plain: plain["run"], cfg=asdict(cfg))

    def inspect(self, text: str, *, chat: bool = False, losses: bool = True) -> Job[Inspection]:
        """Begin what `Workbench.inspect` does."""
        return self.ask("inspect", inspection, text=text, chat=chat, losses=losses)

    def ask(self, do: str, decode: Callable[[dict[str, Any]], T], **asked: Any) -> Job[T]:
        """Begin anything of `app.generator.child.ANSWERS`.

        Args:
            do: its name.
            decode: makes what it answers with of plain data.
            asked: its arguments, plain data too.
        """
        request = {"do": do, **asked}
        with self._lock:
            job = Job(next(self._numbers), decode, self._cancel)
            if self._life is None or not self._life.give(job, request):
                if self._life is not None:
                    job.note = f"The worker that runs the model {self._life.how()}; a new one was started."
                self._life = _Life(self._root, self._index)
                if not self._life.give(job, request):
                    job.end(error=self._life.death())
        return job

    def close(self) -> None:
        """End the process, and with it what it is doing. The next request would start another."""
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            life.close()

    def _cancel(self, number: int) -> None:
        life = self._life
        if life is not None:
            life.cancel(number)


@final
class _Life:
    """One process, from its start to its end, and the jobs that it was given."""

    def __init__(self, root: Path, index: str) -> None:
        # -P: a folder called `app` where the person stands is not ours.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "app.generator.child", str(root.resolve()), index],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=_environment(),
        )
        self._jobs: dict[int, Job] = {}
        self._stop_seconds: dict[int, float] = {}
        """Of each job: how long the worker may take to drop it."""
        self._has_answered = False
        self._cause = ""
        """Why we killed it, if we did."""
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, name="worker-answers", daemon=True).start()

    def give(self, job: Job, request: dict[str, Any]) -> bool:
        """Hand a job over; False if the process has ended."""
        with self._lock:
            if self.process.poll() is not None:
                return False
            self._jobs[job.number] = job
            self._stop_seconds[job.number] = SLOW_STOP_SECONDS.get(request["do"], STOP_SECONDS)
            if self._send({"job": job.number, **request}):
                return True
            del self._jobs[job.number]
            return False

    def cancel(self, number: int) -> None:
        """Have a job dropped; where the worker does not, it is killed."""
        with self._lock:
            job = self._jobs.get(number)
            if job is None:
                return
            self._send({"job": number, "do": "cancel"})
            patience = self._stop_seconds[number] if self._has_answered else LOADING_SECONDS
            # One whose turn has not come is dropped when it comes, and nobody need wait for that.
            job.let_go = not job.started
        watch = threading.Timer(patience, self._give_up, (number, patience))
        watch.daemon = True
        watch.start()

    def _give_up(self, number: int, seconds: float) -> None:
        with self._lock:
            job = self._jobs.get(number)
            if job is None or not job.started or self.process.poll() is not None:
                return
            self._cause = f"did not answer a Stop within {seconds:g} seconds and was killed"
            self.process.kill()

    def how(self) -> str:
        """How it ended, once it has."""
        status = self.process.wait()
        return self._cause or _told(status)

    def death(self) -> WorkerDied:
        """What those are told who still wait."""
        return WorkerDied(f"the worker that runs the model {self.how()}: ask again, which starts a new one")

    def close(self) -> None:
        """Tell it to end, and see that it does."""
        with self._lock, contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _send(self, message: dict[str, Any]) -> bool:
        assert self.process.stdin is not None
        try:
            # Unbuffered: a write may take a part of a long message.
            rest = memoryview(line(message))
            while rest:
                rest = rest[self.process.stdin.write(rest) :]
        except (OSError, ValueError):
            # The process has ended (a broken pipe), or was told to (a closed one).
            return False
        return True

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with open(self.process.stdout.fileno(), "rb", closefd=False) as answers:
            # One that was killed may have left half a line.
            for said in (said for said in answers if said.endswith(b"\n")):
                self._pass_on(json.loads(said))
        death = self.death()
        with self._lock:
            left = list(self._jobs.values())
            self._jobs.clear()
        for job in left:
            if not job.end(error=death):
                job.let_go, job.note = (
                    True,
                    f"The worker that runs the model {self.how()}: the next request starts one.",
                )
        self.process.stdout.close()

    def _pass_on(self, message: dict[str, Any]) -> None:
        with self._lock:
            job = self._jobs.get(message["job"])
            self._has_answered |= message["kind"] != "started"
            if job is not None and message["kind"] in LAST:
                del self._jobs[message["job"]], self._stop_seconds[message["job"]]
        if job is not None:
            job.take(message)


def _environment() -> dict[str, str]:
    """Ours, with the packages that this process runs before any others of their names."""
    home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    # Threads that spin while they wait: see `app.cli.main`.
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": path}


def _told(status: int) -> str:
    if status == -signal.SIGKILL:
        return "was killed (SIGKILL; by the system if memory ran out)"
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"ended with status {status}; its last words are in the server's log" if status else "was closed"
