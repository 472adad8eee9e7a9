"""Which runs are finished, begun, worked on and unreadable."""

import json
import os
import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path

from store.run import MANIFEST, Run, start_run
from store.under_way import Owner, at_work, owner, survey


def begin(root: Path, kind: str = "sae", **config: int) -> Run:
    """A run that was left unfinished."""
    with start_run(root, kind, config, {}) as run:
        return run


def edited(run: Run, **changes: object) -> Run:
    path = run.folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return survey(run.root).unfinished[0]


def test_all_runs_are_seen_the_newest_first(tmp_path):
    for seed in range(2):
        with start_run(tmp_path, "sae", {"seed": seed}, {}) as run:
            run.finish({})
    begin(tmp_path, seed=2)
    found = survey(tmp_path)
    assert len(found.finished) == 2
    assert [run.config for run in found.unfinished] == [{"seed": 2}]
    assert found.of_kind("index") == []


def test_an_unreadable_run_is_named_and_keeps_no_other_from_being_seen(tmp_path):
    with start_run(tmp_path, "sae", {}, {}) as run:
        run.finish({})
    for name, text in {"a": "{", "b": "{}", "c": '"text"', "d": "[1]"}.items():
        folder = tmp_path / "sae" / name
        folder.mkdir()
        (folder / MANIFEST).write_text(text)
    found = survey(tmp_path)
    assert len(found.finished) == 1
    assert {broken.folder.name for broken in found.broken} == {"a", "b", "c", "d"}
    assert all(broken.why for broken in found.broken)


def test_a_finished_manifest_without_a_date_is_named(tmp_path):
    with start_run(tmp_path, "sae", {}, {}) as run:
        run.finish({})
    path = run.folder / MANIFEST
    told = json.loads(path.read_text())
    del told["finished_at"]
    path.write_text(json.dumps(told))
    assert len(survey(tmp_path).broken) == 1


def test_a_manifest_is_read_again_when_it_has_changed(tmp_path):
    with start_run(tmp_path, "sae", {}, {}) as run:
        assert len(survey(tmp_path).unfinished) == 1
        run.finish({})
    assert len(survey(tmp_path).finished) == 1


def test_a_run_is_at_work_while_its_process_holds_it(tmp_path):
    with start_run(tmp_path, "sae", {}, {}) as run:
        assert owner(run) == Owner(os.getpid(), platform.node())
        assert at_work(run)
    assert not at_work(run)


def test_a_run_whose_process_is_gone_is_not_at_work(tmp_path):
    with start_run(tmp_path, "sae", {}, {}) as run:
        assert at_work(edited(run, process=f"{2**22 + 1} on {platform.node()}")) is False


def test_a_later_process_of_the_same_number_is_not_its_maker(tmp_path):
    with start_run(tmp_path, "sae", {}, {}) as run:
        long_ago = datetime.now(UTC) - timedelta(days=4000)
        assert at_work(edited(run, started_at=long_ago.isoformat())) is False


def test_another_machine_is_not_judged(tmp_path):
    run = begin(tmp_path)
    assert at_work(edited(run, process="1 on elsewhere")) is None
    assert at_work(edited(run, process="")) is False
