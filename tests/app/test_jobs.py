"""Jobs in the background, as processes of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import jobs
from app.job_commands import arguments
from app.progress_file import VARIABLE, ProgressFile, read_progress
from store.errors import UsageError
from store.processes import began, began_at

TIMEOUT = 90


@pytest.fixture
def silent():
    """The address of a server that takes connections and never answers, and what asks it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {
            "scorers": ["detection"],
            "backend": "openai_compatible",
            "model": "m",
            "base-url": f"http://127.0.0.1:{server.getsockname()[1]}/v1",
        }


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    """Runs of the tiny demo, which may be written."""
    shutil.copytree(tiny_root, tmp_path / "runs")
    return tmp_path / "runs"


def until(root: Path, name: str, *states: str) -> jobs.Job:
    deadline = time.monotonic() + TIMEOUT
    while True:
        found = jobs.job(root, name)
        if found.state in states:
            return found
        assert time.monotonic() < deadline, (found.state, found.tail())
        time.sleep(0.05)


def is_asking(root: Path, name: str) -> jobs.Job:
    """Once the job is in the middle of its work."""
    deadline = time.monotonic() + TIMEOUT
    while (found := jobs.job(root, name)).progress is None or "score" not in found.progress.stage:
        assert found.state in jobs.ALIVE, found.tail()
        assert time.monotonic() < deadline, found.tail()
        time.sleep(0.05)
    return found


def long_job(root: Path, silent: dict) -> jobs.Job:
    return jobs.start(root, arguments("interpret", root, {"n-latents": 4, **silent}))


@pytest.fixture
def fake(tmp_path: Path):
    """Writes a job's folder as a process would have left it."""

    def write(process: dict | None, ended: dict | None = None, started_at: str = "2026-01-01T00:00:00+00:00"):
        folder = tmp_path / jobs.FOLDER / "one"
        folder.mkdir(parents=True)
        asked = {"argv": ["interpret"], "started_at": started_at, "node": os.uname().nodename}
        for name, value in ((jobs.ASKED, asked), (jobs.PROCESS, process), (jobs.ENDED, ended)):
            if value is not None:
                (folder / name).write_text(json.dumps(value))
        return jobs.job(tmp_path, "one")

    return write


def test_a_job_ends_with_the_run_it_was_asked_for(root):
    argv = arguments("interpret", root, {"n-latents": 3, "embedder": "hashed", "seed": 5})
    started = jobs.start(root, argv)
    done = until(root, started.id, "finished", "failed")
    assert done.state == "finished", done.tail()
    assert "look closer" in done.last_line
    assert done.progress is not None
    assert done.progress.done == done.progress.total == 3


def test_a_job_outlives_who_started_it(root):
    argv = arguments("interpret", root, {"n-latents": 3, "embedder": "hashed", "seed": 6})
    code = "import sys, json; from pathlib import Path; from app import jobs\n"
    code += "print(jobs.start(Path(sys.argv[1]), json.loads(sys.argv[2])).id)"
    command = [sys.executable, "-c", code, str(root), json.dumps(argv)]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert until(root, name, "finished", "failed").state == "finished"


def test_a_stopped_job_keeps_what_is_done_and_goes_on(root, silent):
    first = is_asking(root, long_job(root, silent).id)
    with pytest.raises(UsageError, match="is at work"):
        jobs.resume(root, first.id)
    jobs.stop(root, first.id)
    stopped = until(root, first.id, "stopped", "failed", "finished")
    assert stopped.state == "stopped"
    assert "goes on" in stopped.last_line
    explained = set(root.glob("explanations/*/manifest.json"))
    second = jobs.resume(root, first.id)
    assert second.id != first.id
    assert (second.argv, second.goes_on_from) == (first.argv, first.id)
    is_asking(root, second.id)
    assert set(root.glob("explanations/*/manifest.json")) == explained
    jobs.stop(root, second.id)
    jobs.stop(root, second.id)
    until(root, second.id, "stopped")


def test_a_killed_job_is_told_from_a_stopped_one(root, silent):
    pid = is_asking(root, long_job(root, silent).id).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert until(root, jobs.jobs(root)[0].id, "killed").state == "killed"


def test_what_the_command_refuses_is_its_last_line(root):
    started = jobs.start(root, arguments("score", root, {"explanations": "0" * 16}))
    failed = until(root, started.id, "failed")
    assert failed.last_line.startswith("error: no finished explanations run")
    assert failed.ended["status"] == 2


def test_arguments_that_the_command_does_not_know_fail_the_job(root):
    failed = until(root, jobs.start(root, ["interpret", "--no-such", "1"]).id, "failed")
    assert failed.ended["status"] == 2


def test_ids_are_not_used_again(root):
    argv = arguments("score", root, {"explanations": "0" * 16})
    names = [jobs.start(root, argv).id for _ in range(3)]
    assert len(set(names)) == 3
    for name in names:
        until(root, name, "failed")
    jobs.forget(root, names[0])
    assert {job.id for job in jobs.jobs(root)} == set(names[1:])


def test_another_process_of_the_same_number_is_not_the_job(fake):
    me = os.getpid()
    assert fake({"pid": me, "began": "some node some boot 17"}).state == "killed"


def test_another_process_of_the_same_number_is_not_stopped(fake, tmp_path):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as other:
        fake({"pid": other.pid, "began": "some node some boot 17"})
        jobs.stop(tmp_path, "one")
        assert other.poll() is None
        other.kill()


def test_a_process_that_never_began_is_said_to_have_failed(fake):
    assert fake(None).state == "failed"


def test_a_job_of_another_machine_is_not_judged(fake, tmp_path):
    fake({"pid": 1, "began": "x"})
    path = tmp_path / jobs.FOLDER / "one" / jobs.ASKED
    path.write_text(json.dumps(json.loads(path.read_text()) | {"node": "elsewhere"}))
    assert jobs.job(tmp_path, "one").state == "elsewhere"


@pytest.mark.parametrize("content", ["", "[]", "{}", "no JSON", '{"argv": []}'])
def test_a_damaged_job_is_left_out(tmp_path, content):
    folder = tmp_path / jobs.FOLDER / "one"
    folder.mkdir(parents=True)
    (folder / jobs.ASKED).write_text(content)
    assert jobs.jobs(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("serve", {}),
        ("interpret", {"root": "/elsewhere"}),
        ("interpret", {"n-latents": "-1"}),
        ("interpret", {"n-latents": "3; rm"}),
        ("interpret", {"explainer": "nobody"}),
        ("interpret", {"scorers": ["detection", "--load"]}),
        ("interpret", {"select": "--load /etc/passwd"}),
        ("interpret", {"select": "DROP TABLE latents"}),
        ("interpret", {"model": "--out"}),
        ("interpret", {"base-url": "file:///etc/passwd"}),
        ("interpret", {"base-url": "https://evil.invalid/v1"}),
        ("interpret", {"base-url": "https://api.openai.com.evil.invalid/v1"}),
        ("interpret", {"base-url": "http://me:secret@host/v1"}),
        ("interpret", {"max-usd-per-job": "nan"}),
        ("interpret", {"index-run": "../elsewhere"}),
        ("interpret", {"load": "x.json"}),
        ("interpret", {"latents": ["3", "x"]}),
        ("index", {"repair": "x"}),
    ],
)
def test_what_is_not_in_the_table_is_refused(tmp_path, command, asked):
    with pytest.raises(UsageError):
        arguments(command, tmp_path, asked)


def test_only_commands_of_the_table_are_started(tmp_path):
    with pytest.raises(UsageError, match="not started in the background"):
        jobs.start(tmp_path, ["export", "html"])
    assert not (tmp_path / jobs.FOLDER).exists()


def test_no_shell_reads_the_arguments(tmp_path):
    asked = {"select": "SELECT latent FROM features WHERE explanation = '$(touch pwned)' ; -- `id`"}
    argv = arguments("interpret", tmp_path, asked)
    assert argv[-1] == asked["select"]
    assert jobs.shell(argv).startswith("monosem interpret --root ")


def test_progress_is_written_whole_and_seldom(tmp_path):
    now = [100.0]
    told = ProgressFile(tmp_path / "p.json", "stage", 10, lambda: now[0])
    seen = []
    for _ in range(9):
        now[0] += 0.2
        told.advance(1, "note")
        found = read_progress(tmp_path / "p.json")
        assert found is not None
        seen.append(found.done)
    assert len(set(seen)) <= 5
    told.advance(1)
    last = read_progress(tmp_path / "p.json")
    assert last is not None
    assert (last.done, last.share, last.seconds_left) == (10, 1.0, 0.0)


def test_the_bar_of_every_command_writes_it_where_it_is_asked_for(tmp_path, monkeypatch):
    from app.log import progress

    monkeypatch.setenv(VARIABLE, str(tmp_path / "p.json"))
    assert list(progress(range(3), 3, "a [stage]")) == [0, 1, 2]
    found = read_progress(tmp_path / "p.json")
    assert found is not None
    assert (found.stage, found.done, found.total) == ("a [stage]", 3, 3)


def test_a_progress_file_that_cannot_be_written_does_not_end_the_work(tmp_path, monkeypatch):
    from app.log import progress

    monkeypatch.setenv(VARIABLE, str(tmp_path / "no such folder" / "p.json"))
    assert list(progress(range(3), 3, "stage")) == [0, 1, 2]


def test_a_process_is_known_by_when_it_began():
    me = os.getpid()
    assert began(me) == began(me) is not None
    assert began_at(me) is None or abs(time.time() - (began_at(me) or 0)) < 24 * 3600
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        while other.poll() is None:
            time.sleep(0.01)
        assert began(other.pid) is None
