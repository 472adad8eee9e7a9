"""The published index: versions swap whole, readers never lock, queries are confined."""

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.workbench import Workbench
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index import CURRENT, KEPT_VERSIONS, publish
from store.latents import latent_page, token_texts, windows
from store.run import Run, find_run

REPO = Path(__file__).parents[2]


@pytest.fixture
def index(tiny_root: Path) -> FeatureIndex:
    return Workbench.open(tiny_root).index


def test_tables_are_sorted_by_latent_and_complete(index: FeatureIndex):
    events = index.sql("SELECT latent FROM events")["latent"]
    assert events.is_monotonic_increasing
    counts = index.sql(
        "SELECT l.latent, l.n_fired, count(e.seq) AS n FROM latents l LEFT JOIN events e USING (latent) GROUP BY ALL"
    )
    assert (counts["n_fired"] == counts["n"]).all()


def test_publishing_again_does_nothing_when_nothing_is_new(tiny_root: Path):
    run = find_run(tiny_root, "latest", "index")
    before = (run.folder / CURRENT).read_text(), (run.folder / CURRENT).stat().st_mtime_ns
    publish(run)
    assert before == ((run.folder / CURRENT).read_text(), (run.folder / CURRENT).stat().st_mtime_ns)


def test_a_lost_publication_is_made_up_for(tiny_root: Path, tmp_path: Path):
    root = tmp_path / "runs"
    shutil.copytree(tiny_root, root)
    run = find_run(root, "latest", "index")
    (run.folder / CURRENT).unlink()
    with pytest.raises(UsageError, match="no published index"):
        FeatureIndex(run.folder)
    publish(run)
    assert len(FeatureIndex(run.folder).sql("SELECT * FROM scores")) > 0


def test_a_reader_sees_a_new_version_without_opening_again(tiny_root: Path, tmp_path: Path):
    root = tmp_path / "runs"
    shutil.copytree(tiny_root, root)
    shutil.rmtree(root / "scores")
    run = find_run(root, "latest", "index")
    publish(run)
    reader = FeatureIndex(run.folder)
    pinned = reader.pinned()
    assert len(reader.sql("SELECT * FROM scores")) == 0
    shutil.copytree(tiny_root / "scores", root / "scores")
    for _ in range(4):
        publish(run)
    assert len(pinned.sql("SELECT * FROM scores")) == 0, "that one version, though its file is gone"
    assert len(reader.sql("SELECT * FROM scores")) > 0
    assert len(pinned.pinned().sql("SELECT * FROM scores")) == 0, "what is pinned stays where it is"
    assert len(pinned.sql("SELECT * FROM scores")) == 0
    assert len(reader.pinned().sql("SELECT * FROM scores")) > 0


def test_threads_share_a_reader(index: FeatureIndex):
    failures: list[Exception] = []

    def ask() -> None:
        try:
            for latent in range(40):
                windows(index, latent)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM nowhere",
        "SELECT",
        "DELETE FROM latents",
        "COPY latents TO '/tmp/stolen.csv'",
        "SELECT * FROM read_text('/etc/passwd')",
        "ATTACH '/tmp/other.duckdb'",
        "INSTALL httpfs",
        "SELECT 1; DROP VIEW latents",
        "WITH gone AS (DELETE FROM latents RETURNING *) SELECT * FROM gone",
        "CREATE TABLE mine AS SELECT 1",
        "SET enable_external_access = true",
        "",
    ],
)
def test_queries_are_read_only_and_confined_to_the_index(index: FeatureIndex, query: str):
    with pytest.raises(UsageError, match="cannot be answered"):
        index.sql(query)


def test_a_window_is_the_documents_own_text(index: FeatureIndex):
    for latent in range(10):
        for window in windows(index, latent):
            text = index.arrow("SELECT text FROM documents WHERE doc_id = ?", [window.doc_id]).to_pylist()[0]["text"]
            assert window.text in text
            assert text[window.chars[0] : window.chars[1]] == window.text
            if window.band not in ("near", "silent"):
                assert window.values[window.peak] == pytest.approx(window.value)
                assert window.value > 0
            assert len(window.tokens) == len(window.values) == len(window.token_ids)


def test_top_contexts_come_first_and_descend(index: FeatureIndex):
    found = windows(index, 0)
    bands = list(dict.fromkeys(window.band for window in found))
    assert bands == [b for b in ["top", "q4", "q3", "q2", "q1", "v4", "v3", "v2", "v1", "near", "silent"] if b in bands]
    assert len(bands) > 8
    values = [window.value for window in found if window.band == "top"]
    assert values == sorted(values, reverse=True)


def test_a_latent_that_does_not_exist_says_which_do(index: FeatureIndex):
    with pytest.raises(UsageError, match="choose 0 to 63"):
        latent_page(index, 64)


@pytest.mark.parametrize(
    ("text", "start", "end", "pieces"),
    [
        ("ab cd", [-1, 0, 2], [-1, 2, 5], ("", "ab", " cd")),
        ("a b", [0, 2], [1, 3], ("a", " b")),  # a tokenizer that drops the space
        ("é!", [0, 0, 1], [1, 1, 2], ("é", "", "!")),  # one character, two byte tokens
        ("xyz", [1, 2], [2, 3], ("y", "z")),  # a window that begins inside
    ],
)
def test_token_texts_join_to_the_text(text: str, start: list[int], end: list[int], pieces: tuple[str, ...]):
    assert token_texts(text, start, end) == pieces


def test_a_damaged_index_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "index.1.duckdb").write_bytes(b"not a database")
    (tmp_path / CURRENT).write_text("index.1.duckdb")
    with pytest.raises(UsageError, match="run `monosem index` again"):
        FeatureIndex(tmp_path)


ENDLESS = "SELECT count(*) FROM range(1000000000000) a, range(1000000000000) b WHERE a.range + b.range = 7"


def test_a_query_without_end_is_stopped_and_the_reader_goes_on(tiny_root: Path):
    reader = FeatureIndex(find_run(tiny_root, "latest", "index").folder, timeout_s=0.2)
    with pytest.raises(UsageError, match=r"took longer than 0\.2 s and was stopped: ask for less"):
        reader.sql(ENDLESS)
    assert len(reader.sql("SELECT * FROM latents")) == 64


def test_events_are_read_by_their_exact_places(index: FeatureIndex):
    for latent in range(0, 64, 9):
        fired = index.events(latent)
        table = index.sql("SELECT seq, pos, doc_id, value FROM events WHERE latent = ? ORDER BY seq, pos", [latent])
        for name in fired._fields:
            assert (getattr(fired, name) == table[name].to_numpy()).all()
    with pytest.raises(UsageError, match="choose 0 to 63"):
        index.events(64)


@pytest.fixture
def own_index(tiny_root: Path, tmp_path: Path) -> Run:
    shutil.copytree(tiny_root, tmp_path / "runs")
    return find_run(tmp_path / "runs", "latest", "index")


def test_readers_hold_the_old_version_through_publications(own_index: Run):
    """Two readers and a publisher: nobody waits, nobody sees half, and an answer that began goes on."""
    (own_index.folder / CURRENT).unlink()
    publish(own_index)
    old, other = FeatureIndex(own_index.folder), FeatureIndex(own_index.folder)
    held = old._cursor()
    for _ in range(KEPT_VERSIONS + 1):
        (own_index.folder / CURRENT).rename(own_index.folder / "was")
        publish(own_index)
    assert held.execute("SELECT count(*) FROM latents").fetchall() == [(64,)]
    assert old.version() != old._version
    for reader in (old, other):
        assert len(reader.sql("SELECT * FROM latents")) == 64
        assert reader._version == reader.version()
    assert len(list(own_index.folder.glob("index.*.duckdb"))) == KEPT_VERSIONS


def test_a_publication_killed_at_any_moment_leaves_the_old_version_and_is_made_up_for(own_index: Run):
    scores = own_index.root / "scores"
    shutil.move(scores, own_index.root / "away")
    (own_index.folder / CURRENT).unlink()
    publish(own_index)
    shutil.move(own_index.root / "away", scores)
    code = (
        "from pathlib import Path; from store.run import read_run; from store.index import publish; "
        f"run = read_run(Path({str(own_index.folder)!r})); print(1, flush=True); publish(run)"
    )
    for delay in (0.0, 0.005, 0.02, 0.05, 0.1):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=REPO) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
        reader = FeatureIndex(own_index.folder)
        assert len(reader.sql("SELECT * FROM latents")) == 64
    publish(own_index)
    assert len(FeatureIndex(own_index.folder).sql("SELECT * FROM scores")) > 0
    assert not list(own_index.folder.glob(".*partial*"))


def test_a_damaged_part_is_named(own_index: Run):
    path = next((own_index.folder / "parts").glob("events-*.parquet"))
    content = bytearray(path.read_bytes())
    content[:] = content[: len(content) // 2]
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"events-00000\.parquet is damaged.*index --repair"):
        FeatureIndex(own_index.folder).events(3)


def test_an_index_without_its_harvest_answers_what_is_its_own(own_index: Run):
    shutil.rmtree(own_index.root / "activations")
    reader = FeatureIndex(own_index.folder)
    assert windows(reader, 3)
    assert len(reader.sql("SELECT * FROM events"))
    with pytest.raises(UsageError, match="documents"):
        reader.sql("SELECT * FROM documents")


@pytest.mark.parametrize("table", ["calls", "examples"])
def test_a_table_that_nobody_has_written_to_is_empty_not_missing(own_index: Run, table: str):
    for kind in ("explanations", "scores"):
        shutil.rmtree(own_index.root / kind)
    publish(own_index)
    assert FeatureIndex(own_index.folder).sql(f"SELECT count(*) AS n FROM {table}")["n"][0] == 0
