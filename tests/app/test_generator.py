"""The worker process: what it writes, whose it is, and what becomes of who waits when it is stopped or killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import app
from app.generator import Stopped, Worker, WorkerDied
from app.generator.child import answer
from app.generator.plain import line
from app.workbench import Workbench
from autointerp.steer_config import SteerConfig
from autointerp.sweep import SweepConfig
from store.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

SECONDS = 120
"""Starting Python and torch, on a busy machine."""
ASKED = {"n_tokens": 12, "temperature": 0.9, "seed": 5, "chat": False}
LONG = {**ASKED, "n_tokens": 40}
HOME = Path(app.__file__).parents[1]


@pytest.fixture
def latent(fixture_index) -> int:
    return fixture_index.SCORED


def eventually(condition) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        # A child of ours that nobody waited for is still there, as a zombie.
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def kill(worker: Worker) -> int:
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def test_nothing_is_started_before_it_is_asked_for(runs_root: Path):
    assert Worker(runs_root, "latest").pid is None


def test_it_writes_what_the_workbench_writes(worker: Worker, bench: Workbench, latent: int):
    edits = [SteerConfig(latents=(latent,), strength=(3.0,)), SteerConfig(latents=(4, 5), op="ablate", when="token")]
    for asked in (ASKED, {**ASKED, "seed": 6, "temperature": 0.0}):
        job = worker.steer("Ahoy <b>\n\u2028 \u20ac", edits, **asked)
        found = job.result(SECONDS)
        assert found == bench.steer("Ahoy <b>\n\u2028 \u20ac", edits, **asked)
        assert job.texts == {"clean": found.clean, "steered": found.steered}
        assert job.n_tokens == {"clean": len(found.clean_tokens), "steered": len(found.steered_tokens)}
        assert not job.note


def test_it_reads_what_the_workbench_reads(worker: Worker, bench: Workbench):
    found, direct = worker.inspect("Ahoy <b>\n").result(SECONDS), bench.inspect("Ahoy <b>\n")
    assert (found.tokens, found.token_class, found.fvu) == (direct.tokens, direct.token_class, direct.fvu)
    for name in ("latent", "pos", "value"):
        mine, theirs = getattr(found, name), getattr(direct, name)
        assert np.array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strength": 1e39}, "what is edited is too strong"),
        ({"n_tokens": 10_000}, "shorten one of them"),
        ({"latent": 999}, "there is no latent 999"),
        ({"prompt": ""}, "there is no prompt"),
        ({"op": "nudge"}, "op='nudge' is not known"),
    ],
)
def test_what_is_refused_is_the_line_of_the_workbench_and_the_worker_lives_on(
    worker: Worker, bench: Workbench, latent: int, settings: dict, said: str
):
    asked: dict[str, Any] = {"prompt": "Ahoy", "latent": latent, **ASKED, **settings}
    worker.inspect("Ahoy").result(SECONDS)
    pid = worker.pid
    with pytest.raises(UsageError, match=said) as here:
        bench.steer(**asked)
    with pytest.raises(UsageError) as there:
        worker.steer(**asked).result(SECONDS)
    assert str(there.value) == str(here.value)
    assert not isinstance(there.value, WorkerDied)
    assert worker.steer("Ahoy", latent, **ASKED).result(SECONDS) == bench.steer("Ahoy", latent, **ASKED)
    assert worker.pid == pid


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("x: can't allocate memory: y")]
)
def test_memory_that_has_run_out_is_one_line_and_the_next_is_answered(error: Exception, bench: Workbench):
    said: list[dict] = []
    asked = iter([error])

    def opened() -> Workbench:
        if (first := next(asked, None)) is not None:
            raise first
        return bench

    request = {"do": "inspect", "text": "Ahoy", "chat": False, "losses": False}
    answer(opened, [{"job": number, **request} for number in (1, 2)], set(), said.append)
    refused = next(message for message in said if message["job"] == 1 and message["kind"] == "refused")
    assert "out of memory: shorten the text" in refused["line"]
    assert said[-1]["kind"] == "result"


def test_another_error_is_ours_and_ends_the_worker():
    def opened() -> Workbench:
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        answer(opened, [{"job": 1, "do": "inspect", "text": "Ahoy"}], set(), [].append)


def test_a_setting_that_there_is_none_of_is_refused_here(worker: Worker, latent: int):
    with pytest.raises(UsageError, match="SteerConfig has op"):
        worker.steer("Ahoy", latent, sharply=True)


def test_an_index_that_is_gone_is_refused(tmp_path: Path, latent: int):
    worker = Worker(tmp_path, "latest")
    try:
        with pytest.raises(UsageError, match="no finished index run") as raised:
            worker.steer("Ahoy", latent).result(SECONDS)
        assert not isinstance(raised.value, WorkerDied)
    finally:
        worker.close()


def test_everyone_gets_their_own_text_in_the_order_of_asking(worker: Worker, bench: Workbench, latent: int):
    n_each, got = 4, {}

    def ask(who: int) -> None:
        jobs = [worker.steer(f"Ahoy {who}", latent, 2.0, **{**ASKED, "seed": 10 * who + i}) for i in range(n_each)]
        got[who] = [(job.result(SECONDS), job.texts, job.number) for job in jobs]

    askers = [threading.Thread(target=ask, args=(who,)) for who in range(3)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()
    for who, answers in got.items():
        for i, (found, texts, _) in enumerate(answers):
            assert found == bench.steer(f"Ahoy {who}", latent, 2.0, **{**ASKED, "seed": 10 * who + i})
            assert texts == {"clean": found.clean, "steered": found.steered}
    assert len({number for answers in got.values() for *_, number in answers}) == 3 * n_each


class TestCancelling:
    def test_a_job_ends_in_the_middle_without_a_trace_and_the_next_ones_work(self, bench: Workbench, latent: int):
        """In this process, where the token at which it is cancelled can be chosen."""
        said, cancelled = [], set()
        request = {"do": "steer", "prompt": "Ahoy", "edits": [{"latents": [latent], "strength": [3.0]}], **LONG}
        rows = bench._subject.rows([1, 2, 3])

        def send(message: dict[str, Any]) -> None:
            said.append(message)
            if message["kind"] == "token" and [each["kind"] for each in said].count("token") == 7:
                cancelled.update({1, 2})

        answer(lambda: bench, [{"job": number, **request} for number in (1, 2, 3)], cancelled, send)
        by_job = {n: [each["kind"] for each in said if each["job"] == n] for n in (1, 2, 3)}
        assert by_job[1] == ["started", *7 * ["token"], "dropped"]
        assert by_job[2] == ["dropped"]
        assert by_job[3][-1] == "result"
        assert said[-1]["result"]["steered"] == bench.steer("Ahoy", latent, 3.0, **LONG).steered
        assert not cancelled
        assert np.array_equal(bench._subject.rows([1, 2, 3]), rows)

    def test_a_job_ends_at_once_for_who_asked_and_others_go_on(self, worker: Worker, bench: Workbench, latent: int):
        n_stopped = 0
        for seed in range(50):
            if n_stopped == 2:
                break
            first, second, third = (worker.steer("Ahoy", latent, 3.0, **{**LONG, "seed": seed + i}) for i in range(3))
            eventually(lambda job=first: job.n_tokens["steered"])
            first.cancel()
            second.cancel()
            assert first.done
            assert second.done
            assert third.result(SECONDS) == bench.steer("Ahoy", latent, 3.0, **{**LONG, "seed": seed + 2})
            # A busy machine may let a text be finished between the two looks at it.
            if 0 < first.n_tokens["steered"] < 40 and not second.started:
                n_stopped += 1
                for job in (first, second):
                    with pytest.raises(Stopped, match="ask again for the whole"):
                        job.result(0)
        assert n_stopped == 2

    def test_one_that_has_ended_stays_what_it_is(self, worker: Worker, latent: int):
        job = worker.steer("Ahoy", latent, **ASKED)
        found = job.result(SECONDS)
        job.cancel()
        assert job.result(0) == found


class TestHanging:
    """A worker that is held by the system says nothing, as one does that hangs."""

    @pytest.fixture
    def short(self, monkeypatch):
        monkeypatch.setattr("app.generator.worker.STOP_SECONDS", 0.5)

    def test_a_stop_without_an_answer_ends_the_worker_and_that_is_said(
        self, worker: Worker, bench: Workbench, latent: int, short
    ):
        worker.inspect("Ahoy").result(SECONDS)
        pid = worker.pid
        assert pid is not None
        jobs = [worker.steer("Ahoy", latent, **LONG) for _ in range(20)]
        eventually(lambda: jobs[0].n_tokens["steered"])
        os.kill(pid, signal.SIGSTOP)
        stopped = next(job for job in jobs if not job.done)
        stopped.take({"kind": "started"})
        stopped.cancel()
        assert not stopped.let_go
        eventually(lambda: stopped.let_go)
        assert "did not answer a Stop within 0.5 seconds and was killed" in stopped.note
        with pytest.raises(WorkerDied, match="did not answer a Stop"):
            jobs[-1].result(SECONDS)
        again = worker.steer("Ahoy", latent, **ASKED)
        assert again.result(SECONDS) == bench.steer("Ahoy", latent, **ASKED)
        assert "did not answer a Stop" in again.note
        assert worker.pid != pid

    def test_a_stop_that_is_answered_lets_it_live(self, worker: Worker, latent: int, short):
        worker.inspect("Ahoy").result(SECONDS)
        pid = worker.pid
        for seed in range(5):
            job = worker.steer("Ahoy", latent, **{**LONG, "seed": seed})
            eventually(lambda job=job: job.n_tokens["steered"])
            job.cancel()
            eventually(lambda job=job: job.let_go or not isinstance(job._error, Stopped))
        time.sleep(1)
        assert worker.inspect("Ahoy").result(SECONDS).tokens
        assert worker.pid == pid

    def test_how_long_it_has_been_silent_is_known(self, worker: Worker, latent: int):
        worker.inspect("Ahoy").result(SECONDS)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        job = worker.steer("Ahoy", latent, **ASKED)
        time.sleep(0.3)
        assert job.silent_seconds >= 0.3
        os.kill(worker.pid, signal.SIGCONT)
        job.result(SECONDS)
        assert job.silent_seconds < 0.3


class TestSweeping:
    CFG = SweepConfig(
        edit=SteerConfig(latents=(3,)),
        strengths=(0.5, 1.0),
        prompts=("At night", "Far above"),
        retain=("It rained.", "We ate."),
        words=("moon",),
        n_draws=2,
        n_seeds=1,
        n_tokens=4,
    )

    def test_it_is_the_sweep_of_the_workbench_step_by_step(self, fixture_index, tmp_path: Path):
        fixture_index.build_workbench(tmp_path)
        worker = Worker(tmp_path, "latest")
        try:
            job = worker.sweep(self.CFG)
            id = job.result(SECONDS)
        finally:
            worker.close()
        assert job.progress == (11, 11)
        run = Workbench.open(tmp_path).sweep(self.CFG)
        assert (run.id, run.reused) == (id, True)

    def test_one_that_is_stopped_is_gone_on_with(self, fixture_index, tmp_path: Path):
        fixture_index.build_workbench(tmp_path)
        bench, said, cancelled = Workbench.open(tmp_path), [], set()

        def send(message: dict[str, Any]) -> None:
            said.append(message)
            if message.get("done") == 3:
                cancelled.add(message["job"])

        request = {"do": "sweep", "cfg": json.loads(line(asdict(self.CFG)))}
        answer(lambda: bench, [{"job": 1, **request}], cancelled, send)
        assert [message["kind"] for message in said] == ["started", *3 * ["progress"], "dropped"]
        (folder,) = (path for path in (tmp_path / "steering").iterdir() if path.is_dir())
        assert len(list((folder / ".cells").iterdir())) == 3
        answer(lambda: bench, [{"job": 2, **request}], cancelled, said.append)
        assert said[-1] == {"job": 2, "kind": "result", "result": {"run": folder.name}}

    def test_what_is_refused_is_one_line(self, worker: Worker):
        with pytest.raises(UsageError, match="there is no latent 999"):
            worker.sweep(replace(self.CFG, edit=SteerConfig(latents=(999,)), n_draws=0)).result(SECONDS)


class TestDeath:
    def test_killed_while_it_writes(self, worker: Worker, bench: Workbench, latent: int):
        # So many that the last cannot have been answered when the first gets its first token.
        jobs = [worker.steer("Ahoy", latent, **LONG) for _ in range(20)]
        eventually(lambda: jobs[0].n_tokens["clean"])
        pid = kill(worker)
        eventually(lambda: all(job.done for job in jobs))
        with pytest.raises(WorkerDied, match=r"was killed .SIGKILL.*: ask again, which starts a new one") as raised:
            jobs[-1].result(0)
        assert "\n" not in str(raised.value)
        again = worker.steer("Ahoy", latent, **ASKED)
        assert again.result(SECONDS) == bench.steer("Ahoy", latent, **ASKED)
        assert "was killed" in again.note
        assert worker.pid != pid

    def test_killed_while_it_has_nothing_to_do(self, worker: Worker, bench: Workbench, latent: int):
        worker.inspect("Ahoy").result(SECONDS)
        pid = kill(worker)
        eventually(lambda: worker.pid is None)
        job = worker.steer("Ahoy", latent, **ASKED)
        assert job.result(SECONDS) == bench.steer("Ahoy", latent, **ASKED)
        assert "was killed (SIGKILL" in job.note
        assert "a new one was started" in job.note
        assert worker.pid not in (None, pid)
        assert not worker.inspect("Ahoy").note, "it is said once"

    def test_what_we_got_wrong_ends_it_and_the_next_is_answered(self, runs_root: Path, latent: int, capfd):
        worker = Worker(runs_root, "latest")
        try:
            with pytest.raises(WorkerDied, match="ended with status 1; its last words are in the server's log"):
                worker.steer("Ahoy", latent, n_tokens="many").result(SECONDS)  # pyright: ignore[reportArgumentType]
            assert "TypeError" in capfd.readouterr().err
            assert worker.inspect("Ahoy").result(SECONDS).tokens
        finally:
            worker.close()

    def test_the_end_of_the_asking_process_ends_it(self, runs_root: Path, latent: int):
        asking = (
            "import pathlib, sys, time; from app.generator import Worker\n"
            f"worker = Worker(pathlib.Path({str(runs_root)!r}), 'latest')\n"
            f"worker.inspect('Ahoy').result({SECONDS})\n"
            f"jobs = [worker.steer('Ahoy', {latent}, n_tokens=40, chat=False) for _ in range(200)]\n"
            "print(worker.pid, flush=True); time.sleep(1000)"
        )
        env = {**os.environ, "PYTHONPATH": str(HOME)}
        with subprocess.Popen([sys.executable, "-c", asking], stdout=subprocess.PIPE, text=True, env=env) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert is_alive(pid)
            parent.kill()
        eventually(lambda: not is_alive(pid))

    def test_closing_ends_it(self, runs_root: Path):
        worker = Worker(runs_root, "latest")
        worker.inspect("Ahoy").result(SECONDS)
        pid = worker.pid
        assert pid is not None
        worker.close()
        assert not is_alive(pid)


def test_what_a_library_prints_is_no_answer(runs_root: Path):
    """Prints and reads of a library in the worker do not touch the pipes."""
    code = (
        "import os, sys; from app.generator import child\n"
        "requests, answers = child._own_pipes()\n"
        "print('chatter', flush=True); os.system('echo more'); assert sys.stdin.read() == ''\n"
        "answers.write(b'said ' + requests.readline()); answers.flush()"
    )
    env = {**os.environ, "PYTHONPATH": str(HOME)}
    done = subprocess.run([sys.executable, "-c", code], input=b"asked\n", capture_output=True, check=True, env=env)
    assert done.stdout == b"said asked\n"
    assert b"chatter" in done.stderr


def test_a_folder_called_app_is_not_ours(runs_root: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    worker = Worker(runs_root, "latest")
    try:
        assert worker.inspect("Ahoy").result(SECONDS).tokens
    finally:
        worker.close()
