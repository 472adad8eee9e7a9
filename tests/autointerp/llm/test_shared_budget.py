"""One cap over several processes: never overshot, nobody refused for what another will give back, killed ones told."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autointerp.llm import Reply, Request
from autointerp.llm.metered import Metered
from store.errors import UsageError
from store.ledger import REAPED_EVERY_S, Cap, Cost, Ledger, Spend, Taken
from store.replies import replies_file

CHILD = """
import asyncio, sys
from pathlib import Path
from autointerp.llm import Reply, Request
from autointerp.llm.config import LLMConfig, stacked

class Slow:
    name = "slow"
    async def complete(self, request):
        await asyncio.sleep(float(sys.argv[3]))
        return Reply(text="x", n_tokens_in=5, n_tokens_out=1)

async def main():
    cfg = LLMConfig(max_tokens_per_day=int(sys.argv[4]), concurrency=8)
    llm = stacked(Slow(), cfg, Path(sys.argv[1]), sys.argv[2])
    asks = [Request.ask("be brief", f"{sys.argv[2]} {i}", max_tokens=100) for i in range(20)]
    await asyncio.gather(*(llm.complete(ask) for ask in asks))

asyncio.run(main())
"""


def child(root: Path, job: str, latency_s: float, most: int) -> "subprocess.Popen[bytes]":
    arguments = [str(root), job, str(latency_s), str(most)]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stderr=subprocess.PIPE)


def outcomes(root: Path) -> list[str]:
    return sorted(outcome for (outcome,) in replies_file(root).rows("SELECT outcome FROM calls"))


def wait_for(root: Path, n_sent: int) -> None:
    until = time.monotonic() + 30
    while outcomes(root).count("sent") < n_sent:
        assert time.monotonic() < until
        time.sleep(0.02)


def kill(process: "subprocess.Popen[bytes]") -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_processes_under_one_cap_wait_for_what_the_others_give_back(tmp_path: Path):
    children = [child(tmp_path, f"job{i}", 0.02, 40 * 6 + 200) for i in range(2)]
    for process in children:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told.decode()
    ledger = Ledger(replies_file(tmp_path))
    assert [ledger.spent(f"job{i}") for i in range(2)] == [Spend(n_calls=20, n_tokens=120)] * 2


def test_nobody_waits_for_a_process_that_was_killed(tmp_path: Path):
    process = child(tmp_path, "killed", 60.0, 10_000)
    wait_for(tmp_path, 8)
    kill(process)
    taken = Ledger(replies_file(tmp_path)).spent("killed")
    assert taken.n_open == 8
    other = child(tmp_path, "other", 0.0, taken.n_tokens + 50)
    _, told = other.communicate(timeout=30)
    assert f"{taken.n_tokens:,} tokens spent today (UTC), the next call may take" in told.decode()
    assert outcomes(tmp_path) == ["lost"] * 8
    assert Ledger(replies_file(tmp_path)).spent("killed") == taken._replace(n_open=0)


def test_a_call_that_goes_on_where_it_was_is_paid_for_once(tmp_path: Path):
    process = child(tmp_path, "j", 60.0, 10_000)
    wait_for(tmp_path, 8)
    kill(process)

    class Quick:
        name = "slow"

        async def complete(self, request: Request) -> Reply:
            return Reply(text="x", n_tokens_in=5, n_tokens_out=1)

    ledger = Ledger(replies_file(tmp_path))
    metered = Metered(Quick(), ledger, "j", again=True)
    for i in range(20):
        asyncio.run(metered.complete(Request.ask("be brief", f"j {i}", max_tokens=100)))
    assert ledger.spent("j") == Spend(n_calls=20, n_tokens=120)
    assert outcomes(tmp_path) == ["answered"] * 20


def test_killed_processes_are_looked_for_at_first_and_then_now_and_again(tmp_path: Path):
    cost, file = Cost(n_tokens_in=10, n_tokens_out=10), replies_file(tmp_path)
    now = 0.0

    def leave(key: str) -> None:
        # What is let go is gone, as a process that was killed.
        Ledger(file).take("j", "m", "p", cost, key=key)
        gc.collect()

    def states() -> list[str]:
        return [outcome for (outcome,) in file.rows("SELECT outcome FROM calls ORDER BY id")]

    leave("a")
    ledger = Ledger(file, clock=lambda: now)
    ledger.take("j", "m", "p", cost, key="a", again=True)
    assert ledger.spent("j").n_calls == 1
    leave("b")
    now = REAPED_EVERY_S - 0.1
    ledger.take("j", "m", "p", cost, key="c", again=True)
    assert states() == ["sent"] * 3
    now = REAPED_EVERY_S
    ledger.take("j", "m", "p", cost, key="b", again=True)
    assert ledger.spent("j").n_calls == 3


def test_what_is_lost_to_one_job_is_not_another_s(tmp_path: Path):
    ledger = Ledger(replies_file(tmp_path))
    cost = Cost(n_tokens_in=10, n_tokens_out=10)
    for job in ("a", "b"):
        taken = ledger.take(job, "m", "p", cost, key="k", again=True)
        assert isinstance(taken, Taken)
        ledger.settle(taken, "lost", None)
    assert [ledger.spent(job).n_calls for job in ("a", "b")] == [1, 1]


def test_a_cap_that_only_one_s_own_job_fills_is_told_at_once(tmp_path: Path):
    cap = Cap(scope="job", unit="calls", most=1)
    other = Ledger(replies_file(tmp_path))
    assert isinstance(other.take("other", "m", "p", Cost(n_tokens_in=1, n_tokens_out=1)), Taken)

    class Never:
        name = "m"

        async def complete(self, request: Request) -> Reply:
            return Reply(text="x", n_tokens_in=1, n_tokens_out=1)

    metered = Metered(Never(), Ledger(replies_file(tmp_path)), "mine", caps=(cap,))
    asyncio.run(metered.complete(Request.ask("s", "a")))
    with pytest.raises(UsageError, match="max_calls_per_job allows 1 calls"):
        asyncio.run(asyncio.wait_for(metered.complete(Request.ask("s", "b")), 5))
