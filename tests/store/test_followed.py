"""A log is read as it grows: whole lines only, the new ones only, and anew where another file took its place."""

import json
import os

import pytest

from store.followed import Followed


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}\n')
    return Followed(path)


def steps(log: Followed) -> list[int]:
    return [line["step"] for line in log.read()]


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    assert Followed(tmp_path / "none.jsonl").read() == []


def test_half_a_line_is_read_once_it_is_whole(log):
    with log.path.open("a") as file:
        file.write('{"st')
        file.flush()
        assert steps(log) == [10, 20]
        file.write('ep": 30}\n')
    assert steps(log) == [10, 20, 30]


def test_a_character_is_never_cut(log):
    line = json.dumps({"step": 30, "name": "é"}, ensure_ascii=False).encode() + b"\n"
    for place in range(1, len(line)):
        with log.path.open("ab") as file:
            file.write(line[:place])
        assert steps(log)[-1] != 30
        os.truncate(log.path, log.path.stat().st_size - place)
    with log.path.open("ab") as file:
        file.write(line)
    assert log.read()[-1]["name"] == "é"


def test_only_what_is_new_is_read(log, monkeypatch):
    log.read()
    seen = []
    monkeypatch.setattr("store.followed._object", seen.append)
    with log.path.open("a") as file:
        file.write('{"step": 30}\n')
    log.read()
    assert b"".join(seen) == b'{"step": 30}'


def test_a_log_that_was_cut_back_to_a_checkpoint_has_no_step_twice(log):
    log.read()
    beside = log.path.with_suffix(".new")
    beside.write_text('{"step": 10}\n')
    os.replace(beside, log.path)
    assert steps(log) == [10]
    with log.path.open("a") as file:
        file.write('{"step": 20}\n{"step": 30}\n')
    assert steps(log) == [10, 20, 30]


def test_what_is_no_line_of_json_is_left_out(log):
    with log.path.open("a") as file:
        file.write('{"step": 2{"step": 30}\n[1]\n\n{"step": 40}\n')
    assert steps(log) == [10, 20, 40]
