"""A peer in an environment of its own: it loads once, then answers every request with the seconds it took."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.peers.answers import MARK
from store.errors import UsageError

HERE = Path(__file__).parent
PYTHON = HERE / ".venv" / "bin" / "python"


class Worker:
    """A running worker script; calling it has it do its work once, asking it says which work."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.answers: list[dict[str, Any]] = []
        """What it said of each time, after its greeting."""
        self.greeting = self._listen()

    def __call__(self) -> float:
        """Seconds of one more time."""
        return self.ask({})["seconds"]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Its answer to one request, which is `answers[-1]` as well."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        self.answers.append(self._listen())
        return self.answers[-1]

    def _listen(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError(f"the worker ended with {self._process.wait()}:\n{self._log.read_text()[-3000:]}")


@contextmanager
def worker(script: str, job: dict[str, Any], log: Path) -> Iterator[Worker]:
    """`bench/peers/SCRIPT` with `job` as its argument, in the peers' environment; it ends with the context.

    Raises:
        UsageError: the environment has not been built.
    """
    if not PYTHON.exists():
        raise UsageError(f"the peers' environment {PYTHON.parents[1]} is missing: run `sh {HERE / 'build.sh'}`")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [PYTHON, HERE / script, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            yield Worker(process, log)
        finally:
            process.terminate()
