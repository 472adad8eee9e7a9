"""The published index: versions swap whole, readers never lock, queries are confined."""

import threading
from pathlib import Path

import pytest

from app.workbench import Workbench
from store.errors import UsageError
from store.index import CURRENT, FeatureIndex, publish
from store.latents import latent_page, token_texts, windows
from store.run import find_run


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
    publish(run, find_run(tiny_root, run.inputs["activations"]))
    assert before == ((run.folder / CURRENT).read_text(), (run.folder / CURRENT).stat().st_mtime_ns)


def test_a_lost_publication_is_made_up_for(tiny_root: Path, tmp_path: Path):
    import shutil

    root = tmp_path / "runs"
    shutil.copytree(tiny_root, root)
    run = find_run(root, "latest", "index")
    (run.folder / CURRENT).unlink()
    with pytest.raises(UsageError, match="no published index"):
        FeatureIndex(run.folder)
    publish(run, find_run(root, run.inputs["activations"]))
    assert len(FeatureIndex(run.folder).sql("SELECT * FROM scores")) > 0


def test_a_reader_sees_a_new_version_without_opening_again(tiny_root: Path, tmp_path: Path):
    import shutil

    root = tmp_path / "runs"
    shutil.copytree(tiny_root, root)
    shutil.rmtree(root / "scores")
    run = find_run(root, "latest", "index")
    activations = find_run(root, run.inputs["activations"])
    publish(run, activations)
    reader = FeatureIndex(run.folder)
    assert len(reader.sql("SELECT * FROM scores")) == 0
    shutil.copytree(tiny_root / "scores", root / "scores")
    publish(run, activations)
    assert len(reader.sql("SELECT * FROM scores")) > 0


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
            assert window.values[window.peak] == pytest.approx(window.value)
            assert max(window.values) > 0
            assert len(window.tokens) == len(window.values) == len(window.token_ids)


def test_top_contexts_come_first_and_descend(index: FeatureIndex):
    found = windows(index, 0)
    assert [window.band for window in found] == sorted((w.band for w in found), key=lambda b: (b != "top", -ord(b[-1])))
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
