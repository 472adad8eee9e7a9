"""A harvest killed at any moment ends with the same bytes."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harvests import CFG, files_of

from store.run import Run, find_run

ZYGOTE = f"""
import os, sys, time, pandas, torch
from pathlib import Path
import activations.keep, activations.tiny
from activations.harvest import HarvestConfig, harvest
from activations.text import TextConfig

# Sums in another order round differently: the same bytes need the same number of threads.
torch.set_num_threads(1)

def slow(items, total, label, **options):
    for item in items:
        time.sleep(0.003)
        yield item

print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        harvest({CFG!r}, Path(line.strip()), slow)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Forks a process per harvest, so that none spends its short life importing torch."""


class Zygote:
    """Starts harvests that may be killed."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def harvest(self, root: Path, kill_after_s: float | None) -> int:
        """The exit code of a harvest that is killed after a while, if it still runs then."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{root}\n")
        self._process.stdin.flush()
        pid = int(self._line())
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            # Not waited for yet, the process is there even if it has ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return int(self._line())


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    command = [sys.executable, "-c", ZYGOTE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        yield Zygote(process)
        process.kill()


def test_a_harvest_killed_at_25_random_moments_ends_with_the_same_bytes(run: Run, tmp_path: Path, zygote: Zygote):
    chance = random.Random(0)
    started = time.monotonic()
    assert zygote.harvest(tmp_path / "0", None) == 0
    whole_s = time.monotonic() - started
    n_kills, n_finished = 0, 1
    while n_kills < 25 or n_finished < 3:
        root = tmp_path / str(n_finished)
        exit_code = zygote.harvest(root, chance.uniform(0, 0.6 * whole_s))
        assert exit_code in (0, -signal.SIGKILL)
        n_kills += exit_code != 0
        n_finished += exit_code == 0
    for number in range(n_finished):
        done = find_run(tmp_path / str(number), "latest", "activations")
        assert files_of(done.folder) == files_of(run.folder)
        assert done.results == run.results
        assert done.broken_files() == []
