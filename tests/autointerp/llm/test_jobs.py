"""Whole jobs against a service that misbehaves, and killed at any moment: nothing is lost, nothing is paid twice."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import BROKEN, BUSY, CUT, DROPPED, NOT_JSON, FakeServer, Step, status
from served import config, planted, rows, run

from autointerp.llm import batch_anthropic, batch_openai
from autointerp.llm.batch import Batched, BatchService
from store.errors import UsageError
from store.files import read_json
from store.index import parts_of
from store.replies import replies_file

BATCHES = {"openai_batch": batch_openai, "anthropic_batch": batch_anthropic}
EITHER = ["openai_batch", pytest.param("anthropic_batch", marks=pytest.mark.slow)]
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from served import config, run
from autointerp.llm import batch_anthropic, batch_openai
from autointerp.llm.batch import Batched
for module in (batch_anthropic, batch_openai):
    module.Batched = lambda service, folder, **_: Batched(service, folder, gather_s=0.05, poll_s=0.02)
run(config(sys.argv[1], sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.fixture
def served() -> Iterator[FakeServer]:
    with FakeServer(answer=planted) as fake:
        yield fake


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies of a folder with an index, in which nothing was explained."""

    def made(name: str) -> Path:
        shutil.copytree(tiny_root, tmp_path / name, ignore=shutil.ignore_patterns("explanations", "scores"))
        return tmp_path / name

    return made


def begin(fake: FakeServer, backend: str, root: Path) -> "subprocess.Popen[bytes]":
    arguments = [fake.url, backend, str(root), str(Path(__file__).parent)]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stderr=subprocess.DEVNULL)


def kill_when(process: "subprocess.Popen[bytes]", come: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not come():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_quiet(fake: FakeServer) -> None:
    """What a killed process has sent may still be on its way."""
    n_seen = -1
    while fake.n_busy or len(fake.seen) != n_seen:
        n_seen = len(fake.seen)
        time.sleep(0.2)


def asked(fake: FakeServer) -> Counter[str]:
    return Counter(str(body) for body in fake.asked)


def test_a_service_that_is_busy_broken_slow_or_cut_off_loses_nothing(
    served: FakeServer, root: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("autointerp.llm.retrying.FIRST_S", 0.01)
    calm = rows(run(config(served.url), root("calm")))
    wanted = asked(served)
    served.seen.clear()
    wrong = [BUSY, BROKEN, DROPPED, CUT, NOT_JSON, Step(wait_s=1.2)] * 6
    random.Random(0).shuffle(wrong)
    served.script.extend([step for each in wrong for step in (each, Step())])
    told = run(config(served.url, timeout_s=1.0, tries=30), root("stormy"))
    assert rows(told) == calm
    assert not served.script
    assert asked(served).keys() == wanted.keys()
    assert asked(served).total() == wanted.total() + len(wrong)
    assert told[0].results["n_explained"] == 4


def test_what_a_service_will_not_answer_is_unread_and_costs_no_more(served: FakeServer, root: Callable[[str], Path]):
    served.script.extend([Step(), Step(), *[status(400, "filtered by policy"), Step()] * 20])
    told = run(config(served.url), root("filtered"))
    n_read = sum(each.results["n_judged"] for each in told[1:])
    n_unread = sum(each.results["n_unparsed"] for each in told[1:])
    assert n_unread > 0
    assert n_read + n_unread == told[0].results["n_explained"] * 2 * 3 * 12
    assert told[0].results["n_explained"] + sum(told[0].results["n_unexplained"].values()) == 4


def test_a_service_that_answers_nothing_stops_the_job_with_what_it_says(
    served: FakeServer, root: Callable[[str], Path]
):
    served.script.extend([status(400, "no such parameter: user")] * 100)
    with pytest.raises(UsageError, match=r"turned down all of 8 requests \(last: .*no such parameter.*--model"):
        run(config(served.url, n_latents=20), root("refused"))
    assert len(served.asked) < 40


def test_contexts_that_do_not_fit_the_window_are_counted_for_explaining_and_for_judging(
    served: FakeServer, root: Callable[[str], Path]
):
    served.window = 130
    with pytest.raises(
        UsageError, match=r"6 contexts take \d+ tokens and .* reads 130: about \d fit; pass --n-explain"
    ):
        run(config(served.url), root("small"))


def test_half_a_surrogate_pair_in_replies_costs_a_character_not_the_job(
    served: FakeServer, root: Callable[[str], Path]
):
    served.answer = lambda body: planted(body).replace('"explanation": "', '"explanation": "half \\ud83d ')
    told = run(config(served.url), root("halved"))
    texts = parts_of(told[0].folder, "explanations")["text"].to_pylist()
    assert len(texts) == 4
    assert all(text.startswith("half \ufffd ") for text in texts)


def test_a_job_that_is_run_again_asks_nothing(served: FakeServer, root: Callable[[str], Path]):
    folder = root("runs")
    first = rows(run(config(served.url), folder))
    served.seen.clear()
    for kind in ("explanations", "scores"):
        shutil.rmtree(folder / kind)
    assert rows(run(config(served.url), folder)) == first
    assert not served.asked


@pytest.mark.parametrize("n_seen", [pytest.param(3, marks=pytest.mark.slow), 30])
def test_a_job_killed_at_any_moment_asks_again_what_was_in_flight_at_most(
    served: FakeServer, root: Callable[[str], Path], n_seen: int
):
    served.latency_s = 0.02
    folder = root("killed")
    kill_when(begin(served, "openai_compatible", folder), lambda: len(served.asked) >= n_seen)
    wait_until_quiet(served)
    n_before = len(served.asked)
    ((n_kept,),) = replies_file(folder).rows("SELECT count(*) FROM replies")
    told = rows(run(config(served.url), folder))
    n_unique = len(asked(served))
    assert len(served.asked) == n_unique + (n_before - n_kept)
    assert n_before - n_kept <= 16
    served.seen.clear()
    assert rows(run(config(served.url), root("whole"))) == told
    assert len(served.asked) == n_unique


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in BATCHES.values():
        monkeypatch.setattr(module, "Batched", _quick)


def _quick(service: BatchService, folder: Path, **_: float) -> Batched:
    return Batched(service, folder, gather_s=0.05, poll_s=0.02)


def sent(fake: FakeServer, backend: str) -> Counter[str]:
    """How often each request went into a batch."""
    made: list[dict[str, Any]] = []
    if backend == "anthropic_batch":
        made = [each for batch in fake.anthropic_batches.made.values() for each in batch["requests"]]
        return Counter(each["custom_id"] for each in made)
    lines = [line for text in fake.openai_batches.files.values() for line in text.splitlines() if '"method"' in line]
    return Counter(line[: line.index('"method"')] for line in lines)


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("backend", EITHER)
def test_a_job_by_batches_finds_what_one_by_calls_does(served: FakeServer, root: Callable[[str], Path], backend: str):
    by_calls = rows(run(config(served.url), root("calls")))
    n_unique = len(asked(served))
    told = run(config(served.url, backend), root("batches"))
    assert rows(told) == by_calls
    assert sent(served, backend).total() == n_unique
    made = served.openai_batches.made if backend == "openai_batch" else served.anthropic_batches.made
    # Each job gathers what it can ask at once: explanations, then both scorers' contexts.
    assert len(made) <= 8


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("backend", EITHER)
def test_a_job_killed_while_a_batch_is_under_way_waits_for_it_and_takes_its_cost_once(
    served: FakeServer, root: Callable[[str], Path], backend: str
):
    folder = root("killed")
    batches = served.openai_batches if backend == "openai_batch" else served.anthropic_batches
    batches.polls = 10**6

    def under_way() -> bool:
        return any(read_json(path)["batch_id"] for path in (folder / "batches").glob("*.json"))

    kill_when(begin(served, backend, folder), under_way)
    batches.polls = 1
    told = run(config(served.url, backend), folder)
    assert told[0].results["n_explained"] == 4
    assert set(sent(served, backend).values()) == {1}
    outcomes = Counter(replies_file(folder).rows("SELECT outcome FROM calls"))
    assert outcomes == {("answered",): sent(served, backend).total()}
