"""Who is let in: this machine alone, unless others are asked who they are or may only look."""

import re
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

import app.web
from app.cli import main
from app.commands.serve import Access, command, environment
from app.web import sign_in, state
from store.errors import UsageError


def test_it_listens_here_and_answers_to_no_other_name():
    asked = command(8501)
    assert "--server.address=127.0.0.1" in asked
    assert [each for each in asked if "allowedHosts" in each] == [
        "--server.allowedHosts=127.0.0.1",
        "--server.allowedHosts=localhost",
    ]
    assert "--server.allowedHosts=lab.example" in command(8501, Access(read_only=True, host_names=("lab.example",)))


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (Access(host_names=("lab.example",)), "lets others in, who could write notes and start jobs: add --login or"),
        (Access(login=True), "--login needs Authlib|--login finds no .streamlit/secrets.toml"),
    ],
)
def test_what_would_let_others_in_by_mistake_is_refused(access: Access, said: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match=said):
        access.check()


def test_others_that_may_only_look_are_fine():
    Access(read_only=True, host_names=("lab.example",)).check()


def test_a_bad_port_or_name_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["serve", "--root", str(tmp_path), "--host-names", "lab.example"]) == 2
    assert re.search(r"^error: --host-names lab.example lets others in", capsys.readouterr().err, re.MULTILINE)


def test_whoever_is_not_signed_in_sees_nothing_else(runs_root: Path, monkeypatch: pytest.MonkeyPatch):
    from streamlit.testing.v1 import AppTest

    for name, value in environment(runs_root, "latest", Access(login=True)).items():
        if name.startswith("MONOSEM_"):
            monkeypatch.setenv(name, value)
    at = AppTest.from_file(str(Path(app.web.__file__).parent / "main.py"), default_timeout=60).run()
    assert not at.exception
    assert [button.label for button in at.button] == ["Sign in"]
    assert [title.value for title in at.title] == ["monosem"]
    assert not at.dataframe
    monkeypatch.setattr(sign_in.st, "user", {"is_logged_in": True, "email": "ada@example.org"})
    at.run()
    assert not at.exception
    assert [title.value for title in at.title] == ["Home"]
    assert sign_in.signed_in_as() == "ada@example.org"
    state._open.clear()


def test_it_serves_and_ends_without_a_word(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        command(port), env=environment(tmp_path, "latest"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1):
                break
            time.sleep(0.1)
    finally:
        server.terminate()
    said, _ = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "leaked" not in said
    assert "Traceback" not in said
