"""What people write is kept: by versions, between processes, and past a kill."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store import notes as module
from store.errors import UsageError
from store.notes import MIGRATIONS, TABLES, Notes

SAE = "0123456789abcdef"
WRITER = """
import sys, time
from pathlib import Path
from store.notes import Notes
while time.time() < float(sys.argv[4]):
    pass
notes = Notes(Path(sys.argv[1]))
for i in range(int(sys.argv[3])):
    notes.label("sae", i, f"{sys.argv[2]} {i}", sys.argv[2])
    print(i, flush=True)
"""


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


def writer(root: Path, author: str, n: int, start: float = 0) -> subprocess.Popen:
    """A process that writes `n` labels, from the time `start` on."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), author, str(n), str(start)], stdout=subprocess.PIPE, text=True
    )


def test_an_edit_adds_a_version_and_the_newest_is_shown(notes: Notes):
    notes.label(SAE, 3, "commas", "ada")
    notes.label(SAE, 3, "lists", "bela")
    notes.label(SAE, 3, "commas in lists", "ada")
    assert [(each.author, each.text) for each in notes.labels(SAE)] == [("ada", "commas in lists"), ("bela", "lists")]
    assert [each.text for each in notes.versions(SAE, 3)] == ["commas", "lists", "commas in lists"]
    notes.label(SAE, 3, "", "ada")
    assert [each.text for each in notes.labels(SAE, 3)] == ["lists"]
    assert len(notes.versions(SAE, 3)) == 4


def test_many_are_labelled_at_once(notes: Notes):
    notes.label(SAE, 2, "commas", "ada")
    notes.label_many(SAE, [5, 2], "lists", "ada")
    assert [(each.latent, each.text) for each in notes.labels(SAE)] == [(2, "lists"), (5, "lists")]
    assert [each.text for each in notes.versions(SAE, 2)] == ["commas", "lists"]
    notes.label_many(SAE, [], "none", "ada")
    assert len(notes.labels(SAE)) == 2


def test_many_are_labelled_or_none(notes: Notes):
    notes.label(SAE, 1, "commas", "ada")
    with pytest.raises(UsageError, match="no latent -1"):
        notes.label_many(SAE, [2, -1], "lists", "ada")
    with sqlite3.connect(notes.path) as connection:
        connection.execute(
            "CREATE TRIGGER stop BEFORE INSERT ON labels WHEN NEW.latent = 4 BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    with pytest.raises(UsageError, match="full"):
        notes.label_many(SAE, [2, 3, 4], "lists", "ada")
    assert [each.text for each in notes.labels(SAE)] == ["commas"]


def test_notes_of_one_dictionary_are_not_anothers(notes: Notes):
    notes.label(SAE, 3, "commas", "ada")
    notes.rate(SAE, 3, 5, "ada")
    notes.add_to_list(SAE, "good", [3], "ada")
    notes.record_steering(SAE, {}, {}, "ada")
    other = "f" * 16
    assert (notes.labels(other), notes.ratings(other), notes.lists(other), notes.steerings(other)) == ([], [], {}, [])


def test_ratings_are_an_authors_newest(notes: Notes):
    notes.rate(SAE, 1, 2, "ada")
    notes.rate(SAE, 1, 4, "ada")
    assert [(each.latent, each.value) for each in notes.ratings(SAE)] == [(1, 4)]


def test_lists_keep_their_order_and_what_was_taken_off(notes: Notes):
    notes.add_to_list(SAE, "good", [5, 2, 9], "ada")
    notes.add_to_list(SAE, "bad", [1], "ada")
    notes.remove_from_list(SAE, "good", [2], "bela")
    notes.remove_from_list(SAE, "bad", [1], "bela")
    assert notes.lists(SAE) == {"good": [5, 9], "bad": []}
    assert sum(row["table"] == "list_entries" for row in notes.export()) == 6


def test_steering_comes_back_as_it_was(notes: Notes):
    settings, result = {"latent": 3, "strength": 2.5, "prompt": "שלום \x1b[2J"}, {"steered": "…", "tokens": ["a", "b"]}
    notes.record_steering(SAE, settings, result, "ada")
    (found,) = notes.steerings(SAE)
    assert (found.settings, found.result) == (settings, result)


def test_what_was_written_can_neither_be_changed_nor_deleted(notes: Notes):
    notes.label(SAE, 3, "commas", "ada")
    with sqlite3.connect(notes.path) as connection:
        for statement in ("UPDATE labels SET text = ''", "DELETE FROM labels"):
            with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                connection.execute(statement)


def test_every_row_is_exported_as_json(notes: Notes):
    notes.label(SAE, 3, "a", "ada")
    notes.label(SAE, 3, "b", "ada")
    notes.add_to_list(SAE, "good", [1, 2], "ada")
    rows = [json.loads(json.dumps(row)) for row in notes.export()]
    assert [row["table"] for row in rows] == ["labels", "labels", "lists", "list_entries", "list_entries"]
    assert {row["table"] for row in rows} <= set(TABLES)


def test_reading_makes_no_file(notes: Notes):
    assert notes.labels(SAE) == []
    assert list(notes.export()) == []
    assert not notes.path.exists()


@pytest.mark.parametrize(
    "write",
    [
        lambda notes: notes.label(SAE, -1, "a", "ada"),
        lambda notes: notes.label(SAE, 1, "\udcff", "ada"),
        lambda notes: notes.label(SAE, 1, "a" * 30_000, "ada"),
        lambda notes: notes.rate(SAE, 1, 6, "ada"),
        lambda notes: notes.add_to_list(SAE, " ", [1], "ada"),
        lambda notes: notes.record_steering(SAE, {"a": float("nan")}, {}, "ada"),
        lambda notes: notes.record_steering(SAE, {"a": object()}, {}, "ada"),
    ],
)
def test_what_cannot_be_kept_is_refused(notes: Notes, write):
    with pytest.raises(UsageError):
        write(notes)
    assert list(notes.export()) == []


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path):
    both = [writer(tmp_path, author, 60) for author in ("ada", "bela")]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(Notes(tmp_path).labels("sae")) == 120


def test_a_new_file_is_shared_by_all_that_begin_at_once(tmp_path: Path):
    start = time.time() + 3
    every = [writer(tmp_path, author, 3, start) for author in ("ada", "bela", "cleo", "dora")]
    assert [process.wait(timeout=120) for process in every] == [0] * 4
    assert len(Notes(tmp_path).labels("sae")) == 12


def test_what_was_written_is_there_after_a_kill(tmp_path: Path):
    process = writer(tmp_path, "ada", 100_000)
    assert process.stdout
    said = [int(process.stdout.readline()) for _ in range(25)]
    os.kill(process.pid, signal.SIGKILL)
    said += [int(line) for line in process.stdout if line.endswith("\n")]
    process.wait()
    found = [each.latent for each in Notes(tmp_path).labels("sae")]
    assert found == list(range(len(found)))
    assert len(found) in (len(said), len(said) + 1)
    Notes(tmp_path).label("sae", 0, "and on", "bela")


def test_a_reader_sees_what_was_there_while_another_writes(notes: Notes):
    notes.label(SAE, 1, "a", "ada")
    with notes._writing() as connection:
        connection.execute("INSERT INTO labels (sae, latent, author, text, made_at) VALUES ('x', 1, 'b', 'c', '')")
        assert [each.text for each in notes.labels(SAE)] == ["a"]
        assert notes.labels("x") == []


def test_a_transaction_that_fails_leaves_nothing(notes: Notes):
    notes.label(SAE, 1, "a", "ada")

    def write() -> None:
        entry = "INSERT INTO list_entries (list, latent, author, is_in, made_at) VALUES (99, 1, '', 1, '')"
        with notes._writing() as connection:
            connection.execute("INSERT INTO lists (sae, name, made_at) VALUES ('x', 'y', '')")
            connection.execute(entry)

    with pytest.raises(UsageError, match="FOREIGN KEY"):
        write()
    assert notes.lists("x") == {}


@pytest.mark.parametrize("damage", [b"junk" * 500, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_one_line_and_stays_as_it_is(notes: Notes, damage: bytes):
    notes.path.write_bytes(damage)
    for use in (lambda: notes.labels(SAE), lambda: notes.label(SAE, 1, "a", "ada"), lambda: list(notes.export())):
        with pytest.raises(UsageError, match=r"notes\.sqlite cannot be used") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert notes.path.read_bytes() == damage


def test_a_file_of_a_newer_version_is_left_alone(notes: Notes):
    notes.label(SAE, 1, "a", "ada")
    with sqlite3.connect(notes.path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    for use in (lambda: notes.labels(SAE), lambda: notes.label(SAE, 1, "b", "ada")):
        with pytest.raises(UsageError, match="newer monosem"):
            use()


def test_an_older_file_is_brought_up_to_date(notes: Notes, monkeypatch: pytest.MonkeyPatch):
    notes.label(SAE, 1, "a", "ada")
    added = (*MIGRATIONS, lambda connection: connection.execute("CREATE TABLE later (id INTEGER)"))
    monkeypatch.setattr(module, "MIGRATIONS", added)
    notes.label(SAE, 2, "b", "ada")
    assert len(notes.labels(SAE)) == 2
    with sqlite3.connect(notes.path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(added),)
        assert connection.execute("SELECT * FROM later").fetchall() == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="notes"):
        Notes(tmp_path / "file").label(SAE, 1, "a", "ada")


def test_a_view_is_kept_under_its_name_until_it_is_taken_back(notes: Notes):
    assert notes.views(SAE) == []
    notes.save_view(SAE, "rare", "features", "to=0.01", "ada")
    notes.save_view(SAE, "Dense", "features", "from=0.1", "ada")
    notes.save_view(SAE, "rare", "features", "to=0.001&scored=true", "bob")
    assert [(each.name, each.query, each.author) for each in notes.views(SAE)] == [
        ("Dense", "from=0.1", "ada"),
        ("rare", "to=0.001&scored=true", "bob"),
    ]
    assert notes.views("another") == []
    notes.remove_view(SAE, "rare", "ada")
    assert [each.name for each in notes.views(SAE)] == ["Dense"]
    with pytest.raises(UsageError, match="give it one"):
        notes.save_view(SAE, " ", "features", "", "ada")
    assert sum(row["table"] == "views" for row in notes.export()) == 4


def test_a_file_of_a_version_before_views_has_none(notes: Notes, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "MIGRATIONS", MIGRATIONS[:2])
        notes.label(SAE, 3, "commas", "ada")
    assert notes.views(SAE) == []
    notes.save_view(SAE, "rare", "features", "to=0.01", "ada")
    assert [each.name for each in notes.views(SAE)] == ["rare"]
    assert [each.text for each in notes.labels(SAE)] == ["commas"]
