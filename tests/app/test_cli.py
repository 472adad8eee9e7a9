"""The command line: instant help, one line for what a person can fix, every command alone."""

import contextlib
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

from app.cli import COMMANDS, main
from store import layout
from store.run import find_run, list_runs

REPO = Path(__file__).parents[2]


def monosem(*arguments: str, timeout: float = 120, **options) -> subprocess.CompletedProcess:
    """The installed console script in a process of its own."""
    command = [str(Path(sys.executable).with_name("monosem")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)


def error_of(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """The one line that a failing command prints, run in this process."""
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in "".join(lines)
    return lines[-1]


def test_help_is_instant_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom app.cli import main\nassert main(['--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'duckdb', 'streamlit', 'pandas', 'numpy', 'tyro'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO, capture_output=True)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        assert monosem("--help").returncode == 0
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1.0


def test_a_process_ends_with_what_was_asked_for_and_what_is_done_at_the_end_is_done(tiny_root: Path, tmp_path: Path):
    # A copy: another run of scores would be seen by other tests.
    done, root = tmp_path / "done", shutil.copytree(tiny_root, tmp_path / "runs")
    code = (
        "import atexit, pathlib, sys\nfrom app.cli import script\n"
        f"atexit.register(lambda: pathlib.Path({str(done)!r}).touch())\n"
        f"sys.argv = ['monosem', 'score', '--root', {str(root)!r}]\nscript()"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert "embedding" in ended.stdout
    assert "leaked" not in ended.stderr
    assert done.exists()
    refused = subprocess.run([sys.executable, "-c", code.replace("'score'", "'scope'")], cwd=REPO, check=False)
    assert refused.returncode == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture):
    with contextlib.suppress(SystemExit):
        main([name, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Example: monosem {name}" in printed
    assert "pyright" not in printed


def test_the_help_of_a_sweep_says_what_may_be_asked(capsys: pytest.CaptureFixture):
    with contextlib.suppress(SystemExit):
        main(["steer", "sweep", "--help"])
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "pyright" not in printed
    assert "always (every position)" in printed


def test_what_cannot_be_printed_is_an_error(tiny_root: Path):
    code = (
        "import sys\nfrom app.cli import script\n"
        f"sys.argv = ['monosem', 'show', '--root', {str(tiny_root)!r}]\nscript()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=REPO, stdout=full, stderr=subprocess.PIPE, env=environment, check=False
        )
    assert ended.returncode == 2
    assert b"what was to be printed is lost" in ended.stderr


def test_every_command_file_is_in_the_table():
    files = {path.stem for path in (REPO / "app" / "commands").glob("*.py")} - {"__init__"}
    assert files == set(COMMANDS)


def test_the_stages_work_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture):
    root = ["--root", str(tmp_path)]
    stages = [
        "harvest --model tiny --hook-points blocks.1.hook_resid_post --corpus stories",
        "train topk --d-sae 48 --k 4 --n-steps 20 --batch-size 64",
        "evaluate --only reconstruction loss --loss.n-sequences 2",
        "index",
        "explain --n-latents 3 --min-contexts 2 --min-docs 2 --max-density 0.9",
        "score --embedder hashed",
    ]
    for stage in stages:
        assert main([*stage.split(), *root]) == 0
    assert [run.kind for run in list_runs(tmp_path)] == [
        "activations", "sae", "evaluation", "evaluation", "report", "index", "explanations", "scores",
    ]  # fmt: skip
    capsys.readouterr()
    assert main(["show", *root]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == 8
    sae = find_run(tmp_path, "latest", "sae")
    assert main(["show", sae.id[:6], *root]) == 0
    printed = capsys.readouterr().out
    for expected in (
        "made from:",
        "activations:",
        "d_sae: 48",
        "torch:",
        "used by: evaluation",
        "fvu:",
    ):
        assert expected in printed
    query = "select latent, n_fired from latents order by n_fired desc limit 2"
    assert main(["sql", query, *root, "--format", "json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(row) for row in rows] == [{"latent", "n_fired"}] * 2
    query = "select count(*) as n from rows join tokens using (run, seq, pos) where rows.token_id = tokens.token_id"
    assert main(["sql", query, *root, "--over", "catalogue", "--format", "csv"]) == 0
    n_tokens = find_run(tmp_path, "latest", "activations").results["n_tokens"]
    assert capsys.readouterr().out.split() == ["n", str(n_tokens)]


def test_without_an_index_sql_names_the_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert "--over catalogue" in error_of(capsys, "sql", "select 1", "--root", str(tmp_path))
    assert main(["sql", "select * from runs", "--root", str(tmp_path), "--over", "catalogue"]) == 0


class TestVerify:
    def test_a_whole_run_of_any_kind_is_said_to_be(self, tiny_root: Path, capsys: pytest.CaptureFixture):
        for run in list_runs(tiny_root):
            assert main(["verify", run.id, "--root", str(tiny_root)]) == 0
            printed = capsys.readouterr().out
            assert f"all {len(run.manifest['files'])} files of {run.kind} {run.id} are as they were" in printed

    def test_what_is_damaged_and_what_is_missing_is_named_with_the_way_out(
        self, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
    ):
        root = tmp_path / "runs"
        shutil.copytree(tiny_root, root)
        harvest, sae = (find_run(root, "latest", kind) for kind in ("activations", "sae"))
        data = bytearray((sae.folder / "sae.safetensors").read_bytes())
        data[-1] ^= 1
        (sae.folder / "sae.safetensors").write_bytes(data)
        line = error_of(capsys, "verify", sae.id, "--root", str(root))
        assert "sae.safetensors" in line
        assert f"delete {sae.folder} and make it again" in line
        gone = layout.document_part(harvest.folder, 0)
        gone.unlink()
        assert main(["verify", harvest.id, "--root", str(root)]) == 2
        printed = capsys.readouterr()
        assert printed.out == "missing  documents/part-00000.parquet\n"
        assert f"`monosem harvest --repair {harvest.id}`" in printed.err


def test_asking_again_says_that_nothing_was_done(tmp_path: Path, capsys: pytest.CaptureFixture):
    asked = ["harvest", "--model", "tiny", "--hook-points", "blocks.*.hook_resid_post", "--corpus", "stories"]
    for said in (False, True):
        assert main([*asked, "--root", str(tmp_path)]) == 0
        assert ("was there already: nothing was done" in capsys.readouterr().out) == said


def test_repair_takes_no_other_settings(capsys: pytest.CaptureFixture, tmp_path: Path):
    arguments = ["harvest", "--repair", "latest", "--n-ctx", "64", "--root", str(tmp_path)]
    assert "leave the others out" in error_of(capsys, *arguments)


def test_texts_are_no_commands_for_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture):
    chats = tmp_path / "c.jsonl"
    evil = "\\ud800 evil\\nsecond line \\u001b[31m"
    turn = '[{"role": "user", "content": "hello"}]'
    chats.write_text("".join(f'{{"title": "{evil}{i}", "messages": {turn}}}\n' for i in range(3)))
    asked = ["harvest", "--model", "tiny", "--hook-points", "blocks.0.hook_resid_post", "--root", str(tmp_path)]
    line = error_of(capsys, *asked, "--corpus", str(chats))
    assert "\x1b" not in line
    assert "--chat plain" in line
    plain = ["--corpus", str(chats), "--chat", "plain", "--heldout", "0.3"]
    chats.write_text(
        "".join(f'{{"title": "{evil}{i}", "messages": {turn.replace("hello", "hello" + str(i))}}}\n' for i in range(3))
    )
    assert main([*asked, *plain]) == 0
    capsys.readouterr()
    for asked in ("title", "[title]", "map {title: title}"):
        assert main(["sql", f"select {asked} from documents", "--over", "catalogue", "--root", str(tmp_path)]) == 0
        assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hrvest"], "did you mean 'harvest'?"),
        (["harvest", "--model", "gtp2"], "no model 'gtp2'"),
        (["harvest", "--model", "tiny", "--corpus", "nope.txt"], "nope.txt does not exist"),
        (["harvest", "--model", "tiny", "--corpus", "EMPTY"], "there is no text in"),
        (
            ["harvest", "--model", "tiny", "--corpus", "stories", "--hook-points", "blocks.1.resid"],
            "the nearest are blocks.",
        ),
        (["harvest", "--model", "tiny", "--corpus", "stories", "--heldout", "2"], "heldout=2.0 is not between 0 and 1"),
        (["train", "topk", "--k", "65", "--d-sae", "64"], "k=65 exceeds d_sae=64: choose k <= d_sae"),
        (["train", "topk", "--n-steps", "0"], "n_steps=0"),
        (["train", "tpk"], "did you mean 'topk'?"),
        (["train", "topk", "--activations", "zzz"], "no finished activations run 'zzz'"),
        (["train", "topk", "--classes", "nromal"], "token class nromal is not known"),
        (["evaluate", "/no/such/run"], "no finished sae run"),
        (["index", "--sae", "zzz"], "no finished sae run 'zzz'"),
        (["explain", "--explainer", "gpt"], "no explainer 'gpt'"),
        (["score", "--scorer", "vibes"], "no scorer 'vibes'"),
        (["show", "zzz"], "no finished run 'zzz'"),
        (["sql", "select from"], "cannot be answered"),
        (["sql", "select nothing from rows", "--over", "catalogue"], "cannot be answered"),
        (["sql", "copy runs to 'x.csv'", "--over", "catalogue"], "takes one SELECT, DESCRIBE or SHOW, not COPY"),
        (["verify", "zzz"], "no finished run 'zzz'"),
        (["demo", "--recipe", "large", "--out", "OUT"], "no recipe 'large'"),
        (["study", "x"], "has no 'x'"),
        (["serve", "--port", "99999"], "cannot be used"),
    ],
)
def test_what_a_person_can_fix_is_one_line(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], expected: str
):
    (tmp_path / "empty.txt").write_text("")
    places = {"EMPTY": str(tmp_path / "empty.txt"), "OUT": str(tmp_path)}
    arguments = [places.get(argument, argument) for argument in arguments]
    with_root = arguments[0] in COMMANDS and arguments[0] not in ("demo", "study") and arguments != ["train", "tpk"]
    assert expected in error_of(capsys, *arguments, *(["--root", str(tiny_root)] if with_root else []))


def test_a_port_in_use_is_named(tiny_root: Path, capsys: pytest.CaptureFixture):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = error_of(capsys, "serve", "--root", str(tiny_root), "--port", port)
    assert f"port {port} cannot be used" in line
    assert "--port" in line


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import app.commands.show as show

    monkeypatch.setattr(show, "list_runs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["show", "--root", str(tmp_path)])


def test_packages_of_two_origins_are_refused(tmp_path: Path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "__init__.py").write_text("")
    (tmp_path / "store" / "errors.py").write_text("class UsageError(Exception): ...")
    found = monosem("show", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert found.returncode == 2
    assert f"package 'store' comes from {tmp_path}" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.slow
def test_a_demo_killed_at_any_moment_is_finished_by_the_next_one(tmp_path: Path):
    """Killed in every stage, never given up: what a reader can see is always whole."""
    command = [
        str(Path(sys.executable).with_name("monosem")),
        *["demo", "--recipe", "tiny", "--no-serve", "--out"],
        str(tmp_path),
    ]
    for marker in ("harvest blocks", "train topk", "encode every", "explain with", "score with"):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if marker in line:
                    os.kill(process.pid, signal.SIGKILL)
                    break
        assert all(not run.broken_files() for run in list_runs(tmp_path))
    found = monosem(*command[1:])
    assert found.returncode == 0, found.stderr
    assert {run.kind for run in list_runs(tmp_path)} == {
        "activations",
        "sae",
        "evaluation",
        "index",
        "explanations",
        "scores",
    }
    again = monosem(*command[1:])
    assert again.returncode == 0
    assert "…" not in again.stderr, "a loop ran although everything was finished"


def test_interrupting_is_no_traceback(tiny_root: Path, tmp_path: Path):
    shutil.copytree(tiny_root / "activations", tmp_path / "activations")
    # more steps than could ever end before the signal is seen, which a process begun in the background would ignore
    command = [str(Path(sys.executable).with_name("monosem")), "train", "topk", "--n-steps", "1000000", "--k", "4"]
    options = {
        "stderr": subprocess.PIPE,
        "text": True,
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    }
    with subprocess.Popen([*command, "--d-sae", "64", "--root", str(tmp_path)], **options) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "train topk" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "stopped: run the same command again" in rest
    assert "Traceback" not in rest
