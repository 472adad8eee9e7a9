"""Runs: identity, resumption, locks, lookup, damage."""

import json
import multiprocessing
from pathlib import Path

import pytest

from store.errors import Busy, UsageError
from store.files import PARTIAL, whole_file
from store.run import MANIFEST, find_run, list_runs, read_run, start_run


def make(root: Path, kind: str = "sae", config: dict | None = None) -> str:
    with start_run(root, kind, config or {"k": 1}, {"activations": "abc"}) as run:
        (run.folder / "data").write_bytes(b"123")
        run.finish({"fvu": 0.5})
    return run.id


def test_the_same_request_is_the_same_run(tmp_path: Path):
    assert make(tmp_path) == make(tmp_path)
    assert make(tmp_path, config={"k": 2}) != make(tmp_path)
    assert len(list_runs(tmp_path)) == 2


def test_a_finished_run_says_what_made_it(tmp_path: Path):
    run = find_run(tmp_path, make(tmp_path))
    assert run.finished
    assert run.results == {"fvu": 0.5}
    assert run.manifest["made_by"]["packages"]["torch"]
    assert set(run.manifest["files"]) == {"data"}
    assert run.broken_files() == []


def test_a_flipped_byte_is_found(tmp_path: Path):
    run = find_run(tmp_path, make(tmp_path))
    (run.folder / "data").write_bytes(b"124")
    assert run.broken_files() == ["data"]


def test_an_unfinished_run_is_begun_again_without_its_partial_files(tmp_path: Path):
    with start_run(tmp_path, "sae", {"k": 1}, {}) as run:
        (run.folder / f".weights.1{PARTIAL}").write_bytes(b"half")
    assert list_runs(tmp_path) == []
    with start_run(tmp_path, "sae", {"k": 1}, {}) as run:
        assert not run.finished
        assert list(run.folder.iterdir()) == [run.folder / MANIFEST]


def _hold(root: str, ready, done) -> None:
    with start_run(Path(root), "sae", {"k": 1}, {}):
        ready.set()
        done.wait(30)


def test_two_processes_never_make_the_same_run_and_the_lock_dies_with_its_owner(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    owner = context.Process(target=_hold, args=(str(tmp_path), ready, done))
    owner.start()
    assert ready.wait(60)
    message = rf"another process is making sae .* \(process {owner.pid} on .*\): wait for it"
    with pytest.raises(Busy, match=message), start_run(tmp_path, "sae", {"k": 1}, {}):
        pass
    owner.kill()
    owner.join()
    with start_run(tmp_path, "sae", {"k": 1}, {}) as run:
        assert not run.finished


def test_an_edited_manifest_is_a_run_of_another_config(tmp_path: Path):
    folder = find_run(tmp_path, make(tmp_path)).folder
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"config": {"k": 7}}))
    with pytest.raises(UsageError, match="another config"):
        read_run(folder)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("{}", "lacks"), ("", "not valid JSON")])
def test_a_damaged_manifest_is_refused_in_one_line(tmp_path: Path, text: str, message: str):
    folder = find_run(tmp_path, make(tmp_path)).folder
    (folder / MANIFEST).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_run(folder)


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    damaged, whole = make(tmp_path), make(tmp_path, config={"k": 2})
    (tmp_path / "sae" / damaged / MANIFEST).write_text("{")
    assert [run.id for run in list_runs(tmp_path)] == [whole]
    assert damaged in caplog.text


def test_runs_are_found_by_folder_id_start_of_id_and_latest(tmp_path: Path):
    first, second = make(tmp_path), make(tmp_path, config={"k": 2})
    for reference in (second, second[:6], "latest", str(tmp_path / "sae" / second)):
        assert find_run(tmp_path, reference, "sae").id == second
    assert {run.id for run in list_runs(tmp_path)} == {first, second}


def test_what_cannot_be_found_lists_what_there_is(tmp_path: Path):
    with pytest.raises(UsageError, match="no finished sae run in"):
        find_run(tmp_path, "latest", "sae")
    identity = make(tmp_path)
    with pytest.raises(UsageError, match=identity):
        find_run(tmp_path, "zzz", "sae")
    with pytest.raises(UsageError, match="is a run of kind sae, not index"):
        find_run(tmp_path, str(tmp_path / "sae" / identity), "index")


def test_a_file_is_whole_or_absent(tmp_path: Path):
    def die_half_way() -> None:
        with whole_file(tmp_path / "a") as scratch:
            scratch.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        die_half_way()
    assert list(tmp_path.iterdir()) == []
    with whole_file(tmp_path / "a") as scratch:
        scratch.write_text("whole")
        assert not (tmp_path / "a").exists()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "whole")]


@pytest.mark.parametrize(("number", "message"), [(28, "no space left"), (13, "cannot write"), (30, "cannot write")])
def test_disk_errors_say_what_to_do(tmp_path: Path, number: int, message: str):
    with pytest.raises(UsageError, match=message), whole_file(tmp_path / "a"):
        raise OSError(number, "refused")
