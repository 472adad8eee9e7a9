"""The catalogue: every stored vector beside its text, queries that can harm nothing, damage named in one line."""

import shutil
import threading
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from catalogued import LENGTH, MLP, N_WINDOWS, PER_WINDOW, RESID, WIDTHS, harvest

from store import catalog, layout
from store.catalog import Catalog, write_catalog
from store.errors import UsageError
from store.hashing import sha256_file
from store.run import start_run
from store.shards import STORED_AS

TABLES = ("runs", "shards", "documents", "sequences", "tokens", "rows", "statistics", "figures", "curves", "compared")


def first(opened: Catalog, query: str) -> dict:
    return opened.arrow(query).to_pylist()[0]


def test_every_table_knows_its_run(opened: Catalog):
    n_tokens, n_sequences = PER_WINDOW * N_WINDOWS * LENGTH, PER_WINDOW * N_WINDOWS
    expected = {
        "shards": 2 * 2 * N_WINDOWS,
        "documents": 2 * n_sequences,
        "sequences": n_sequences,
        "tokens": n_tokens,
        "rows": 2 * n_tokens,
        "statistics": 2,
    }
    harvests = opened.sql("SELECT id FROM runs WHERE kind = 'activations'")["id"].tolist()
    for table, n in expected.items():
        found = opened.sql(f"SELECT run, count(*) AS n FROM {table} GROUP BY run")
        assert dict(zip(found["run"], found["n"], strict=True)) == dict.fromkeys(harvests, n), table


def test_runs_of_all_kinds_are_told_with_their_config_and_results(opened: Catalog):
    row = first(opened, "SELECT config.k::INT AS k, results.fvu::DOUBLE AS fvu, inputs FROM runs WHERE kind = 'sae'")
    assert (row["k"], row["fvu"]) == (1, 0.25)
    assert row["inputs"] == '{"activations": "a"}'


def test_a_shard_is_described_without_opening_it(opened: Catalog, root: Path):
    row = first(opened, f"SELECT * FROM shards WHERE hook_point = '{MLP}' AND dtype = 'bfloat16' ORDER BY path DESC")
    path = Path(row["path"])
    assert path.is_relative_to(root.resolve())
    assert row["shard"] == f"{MLP}/{path.name}"
    assert (row["window"], row["d_in"], row["n_bytes"]) == (N_WINDOWS - 1, WIDTHS[MLP], path.stat().st_size)
    assert row["sha256"] == sha256_file(path)


def test_every_row_meets_the_token_it_is_of(opened: Catalog):
    row = first(
        opened,
        "SELECT count(*) AS n, bool_and(r.token_id = t.token_id AND r.doc_id = t.doc_id) AS same "
        "FROM rows r JOIN tokens t USING (run, seq, pos) JOIN documents d ON d.run = r.run AND d.doc_id = r.doc_id",
    )
    assert row == {"n": 2 * 2 * PER_WINDOW * N_WINDOWS * LENGTH, "same": True}


def test_tokens_are_the_sequences_one_by_one(opened: Catalog):
    for row in opened.arrow("SELECT * FROM sequences").to_pylist():
        tokens = opened.arrow("SELECT * FROM tokens WHERE run = ? AND seq = ? ORDER BY pos", [row["run"], row["seq"]])
        assert tokens.column("pos").to_pylist() == list(range(LENGTH))
        for one, many in (
            ("token_id", "token_ids"),
            ("doc_id", "doc_ids"),
            ("char_start", "char_start"),
            ("char_end", "char_end"),
            ("text_class", "text_class"),
        ):
            assert tokens.column(one).to_pylist() == row[many]


class TestVectors:
    @pytest.mark.parametrize("dtype", STORED_AS)
    def test_come_in_the_order_of_the_query_and_as_they_were_stored(self, tmp_path: Path, dtype: str):
        harvest(tmp_path, dtype=dtype)
        x, table = Catalog(tmp_path).vectors(
            "SELECT path, row, seq FROM rows WHERE hook_point = ? ORDER BY hash(path, row)", [RESID]
        )
        assert x.shape == (len(table), WIDTHS[RESID])
        assert x.dtype.is_floating_point
        assert str(x.dtype) == "torch.float32"
        by_place = {}
        for path in table.column("path").unique().to_pylist():
            column = pq.read_table(path, columns=["activation"]).column("activation").to_pylist()
            by_place |= {(path, i): np.frombuffer(value, STORED_AS[dtype]) for i, value in enumerate(column)}
        for value, place in zip(x.numpy(), table.to_pylist(), strict=True):
            stored = by_place[place["path"], place["row"]]
            exact = (stored.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else stored
            assert (value == exact).all()

    def test_a_place_may_be_asked_for_twice(self, opened: Catalog):
        query = f"SELECT path, row FROM rows WHERE hook_point = '{RESID}' AND seq = 1"
        once = opened.vectors(f"{query} ORDER BY ALL").x
        twice = opened.vectors(f"SELECT * FROM ({query} UNION ALL {query}) ORDER BY ALL").x
        assert (twice[::2] == once).all()
        assert (twice[1::2] == once).all()

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("SELECT path FROM rows", "gives no column row"),
            ("SELECT 1 AS x", "gives no column path or row"),
            ("SELECT * FROM rows WHERE seq = -1", "gives no rows"),
            ("SELECT * FROM rows", r"mixes vectors of widths 4 \(blocks.0.hook_resid_post of run .*6 \(blocks"),
            ("SELECT '/etc/passwd' AS path, 0 AS row", "/etc/passwd is no shard of a finished run"),
            ("SELECT folder || '/manifest.json' AS path, 0 AS row FROM runs LIMIT 1", "is no shard"),
            ("SELECT path, 10000 AS row FROM rows LIMIT 1", "has no row 10000: choose 0 to 11"),
            ("SELECT path, -1 AS row FROM rows LIMIT 1", "has no row -1"),
            ("SELECT path, row + 0.5 AS row FROM rows LIMIT 1", "take both as they are in the view rows"),
            ("SELECT path, NULL::INT AS row FROM rows LIMIT 1", "some are missing"),
            ("SELECT 1 AS path, 1 AS row", "path is int32"),
        ],
    )
    def test_what_names_no_vector_is_one_line(self, opened: Catalog, query: str, message: str):
        with pytest.raises(UsageError, match=message):
            opened.vectors(query)


@pytest.mark.parametrize("name", ["it's", 'a "b" c', "[a-z]*?", "naïve {x} $1 %s", "'; DROP VIEW rows; --"])
def test_a_root_may_have_any_name(tmp_path: Path, name: str):
    root = tmp_path / name / "runs"
    root.mkdir(parents=True)
    harvest(root)
    opened = Catalog(root)
    assert len(opened.vectors(f"SELECT * FROM rows WHERE hook_point = '{RESID}'").x) == PER_WINDOW * N_WINDOWS * LENGTH
    assert len(opened.sql("SELECT * FROM tokens JOIN documents USING (run, doc_id)")) == PER_WINDOW * N_WINDOWS * LENGTH
    with duckdb.connect(str(write_catalog(root)), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM rows").fetchall() == [(2 * PER_WINDOW * N_WINDOWS * LENGTH,)]


def test_a_root_may_be_a_link_or_relative(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    assert len(Catalog(Path("link")).vectors(f"SELECT * FROM rows WHERE hook_point = '{MLP}'").x) == 96


EVERY_COLUMN = "SELECT sum(hash(token_id, seq, pos, doc_id, token_class)) FROM rows"
"""What statistics alone cannot answer."""


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated"])
@pytest.mark.parametrize("number", [0, -1], ids=["first", "last"])
def test_a_damaged_shard_is_named_with_the_way_out(tmp_path: Path, damage: str, number: int):
    run = harvest(tmp_path)
    path = layout.shards(run.folder, RESID)[number].resolve()
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "truncated": data[:-9]}[damage])
    with pytest.raises(UsageError) as refusal:
        Catalog(tmp_path).sql(EVERY_COLUMN)
    message = str(refusal.value)
    assert str(path) in message
    assert f"`monosem harvest --repair {run.id}`" in message
    assert "\n" not in message


def test_changed_bytes_within_a_shard_send_to_verify(tmp_path: Path):
    """DuckDB does not always say in which file they are."""
    run = harvest(tmp_path)
    path = layout.shards(run.folder, RESID)[-1].resolve()
    data = bytearray(path.read_bytes())
    columns = slice(len(data) // 4, len(data) // 2)
    data[columns] = bytes(255 - byte for byte in data[columns])
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"`monosem (verify RUN|harvest --repair .*)`"):
        Catalog(tmp_path).sql(EVERY_COLUMN)
    assert run.broken_files() == [f"{RESID}/{path.name}"]


def test_a_shard_that_breaks_under_an_open_catalogue_is_named(tmp_path: Path):
    run = harvest(tmp_path)
    opened = Catalog(tmp_path)
    path = layout.shards(run.folder, RESID)[-1].resolve()
    places = f"SELECT '{path}' AS path, 0 AS row"
    assert len(opened.vectors(places).x) == 1
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UsageError, match=f"{path.name} is damaged.*--repair {run.id}"):
        opened.vectors(places)


def test_a_damaged_receipt_is_named_with_the_way_out(tmp_path: Path):
    run = harvest(tmp_path)
    layout.receipt(run.folder, 1).write_text("{")
    with pytest.raises(UsageError, match=rf"00001\.json is damaged.*--repair {run.id}"):
        Catalog(tmp_path)


def test_opening_reads_one_shard_and_a_query_only_those_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All others are garbage here: whatever touched them would fail."""
    run, other = harvest(tmp_path, "a"), harvest(tmp_path, "b")
    paths = [path for r in (run, other) for hook in WIDTHS for path in layout.shards(r.folder, hook)]
    kept = layout.shards(run.folder, RESID)
    for path in set(paths) - set(kept):
        path.write_bytes(b"garbage" * 100)
    monkeypatch.setattr(catalog, "Shard", None)
    opened = Catalog(tmp_path)
    assert first(opened, "SELECT count(*) AS n FROM shards")["n"] == len(paths)
    query = f"SELECT count(token_id) AS n FROM rows WHERE run = '{run.id}' AND hook_point = '{RESID}' AND pos < 3"
    assert first(opened, query)["n"] == PER_WINDOW * N_WINDOWS * 3


def test_without_shards_there_are_still_documents_and_tokens(tmp_path: Path):
    harvest(tmp_path, widths={})
    opened = Catalog(tmp_path)
    assert len(opened.sql("SELECT * FROM tokens")) == PER_WINDOW * N_WINDOWS * LENGTH
    assert opened.sql("SELECT * FROM rows JOIN tokens USING (run, seq, pos)").empty
    assert opened.sql("SELECT * FROM shards").empty


def test_without_runs_every_table_is_there_and_empty(tmp_path: Path):
    opened = Catalog(tmp_path)
    for table in TABLES:
        assert opened.sql(f"SELECT * FROM {table}").empty
    with pytest.raises(UsageError, match="is no folder of runs"):
        Catalog(tmp_path / "nowhere")


def test_an_unfinished_run_is_not_in_it(tmp_path: Path):
    harvest(tmp_path)
    with start_run(tmp_path, "activations", {"name": "other"}, {}):
        pass
    assert len(Catalog(tmp_path).sql("SELECT * FROM runs")) == 1


def test_a_copy_under_another_name_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = harvest(tmp_path)
    shutil.copytree(run.folder, run.folder.with_name("copy"))
    assert len(Catalog(tmp_path).sql("SELECT * FROM runs")) == 1
    assert "is a copy of run" in caplog.text


def test_threads_share_a_catalogue(opened: Catalog):
    failures: list[Exception] = []

    def ask() -> None:
        try:
            for seq in range(5):
                opened.vectors(f"SELECT * FROM rows WHERE hook_point = '{RESID}' AND seq = ?", [seq])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_written_file_has_the_same_tables_for_any_client(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Catalog
):
    file = write_catalog(root, tmp_path / "c.duckdb")
    first_bytes = file.read_bytes()
    write_catalog(root, file)
    assert [path.name for path in tmp_path.iterdir()] == ["c.duckdb"]
    assert first_bytes
    monkeypatch.chdir("/")
    with duckdb.connect(str(file), read_only=True) as connection:
        for table in TABLES:
            names = opened.sql(f"DESCRIBE {table}")[["column_name", "column_type"]]
            described = connection.sql(f"DESCRIBE {table}").df()[["column_name", "column_type"]]
            assert names.equals(described)
            n = connection.sql(f"SELECT count(*) FROM {table}").fetchall()
            assert n == [(len(opened.sql(f"SELECT * FROM {table}")),)]
