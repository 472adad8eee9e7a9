"""Shards: the same values through memory map and Arrow, foreign files, damage."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import UsageError
from store.hashing import sha256_file
from store.shards import ROW_COLUMNS, STORED_AS, VECTOR_COLUMN, Rows, Shard, write_shard
from store.thrift import Reader, encode


def rows_of(n: int, d: int, dtype: str = "float16", seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    stored = STORED_AS[dtype]
    bits = random.integers(0, 2**15, (n, d)).astype("<u2") if dtype == "bfloat16" else random.standard_normal((n, d))
    columns = {name: random.integers(0, 100, n).astype(kind.to_pandas_dtype()) for name, kind in ROW_COLUMNS.items()}
    return Rows(vectors=bits.astype(stored), columns=columns)


@pytest.mark.parametrize("dtype", STORED_AS)
def test_what_is_written_is_read_back_as_a_memory_map(tmp_path: Path, dtype: str):
    rows = rows_of(300, 7, dtype)
    write_shard(tmp_path / "a.parquet", rows, dtype, {"hook_point": "blocks.0.hook_resid_post"})
    shard = Shard(tmp_path / "a.parquet")
    assert isinstance(shard.vectors, np.memmap)
    assert shard.vectors.tobytes() == rows.vectors.tobytes()
    assert shard._through_arrow().tobytes() == rows.vectors.tobytes()
    assert all((shard.columns[name] == rows.columns[name]).all() for name in ROW_COLUMNS)
    assert (shard.d_in, shard.n_rows, shard.dtype) == (7, 300, dtype)
    assert shard.metadata["hook_point"] == "blocks.0.hook_resid_post"


def test_other_readers_find_an_ordinary_parquet_file(tmp_path: Path):
    rows = rows_of(300, 7)
    entry = write_shard(tmp_path / "a.parquet", rows, "float16", {"hook_point": "h", "empty": "", "é": "ü"})
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.names == [VECTOR_COLUMN, *ROW_COLUMNS]
    assert [field.type for field in table.schema] == [pa.binary(14), *ROW_COLUMNS.values()]
    assert not any(field.nullable for field in table.schema)
    assert b"".join(table.column(VECTOR_COLUMN).to_pylist()) == rows.vectors.tobytes()
    assert all((table.column(name).to_numpy() == rows.columns[name]).all() for name in ROW_COLUMNS)
    assert table.schema.metadata["monosem.é".encode()] == "ü".encode()
    # One column alone, and rows by a filter on its statistics: what depends on every offset in the footer.
    for name in ROW_COLUMNS:
        alone = pq.read_table(tmp_path / "a.parquet", columns=[name]).column(name).to_numpy()
        assert (alone == rows.columns[name]).all()
    few = pq.read_table(tmp_path / "a.parquet", filters=[("seq", "<", 10)])
    assert few.num_rows == (rows.columns["seq"] < 10).sum()
    file = duckdb.sql(f"SELECT * FROM '{tmp_path}/a.parquet'").fetchnumpy()
    assert all((file[name] == rows.columns[name]).all() for name in ROW_COLUMNS)
    assert entry == ((tmp_path / "a.parquet").stat().st_size, sha256_file(tmp_path / "a.parquet"))


def test_the_footer_tells_where_everything_lies(tmp_path: Path):
    n, d = 300, 7
    write_shard(tmp_path / "a.parquet", rows_of(n, d), "float16", {})
    size, group = (tmp_path / "a.parquet").stat().st_size, pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    assert group.total_byte_size == sum(column.total_uncompressed_size for column in columns)
    starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
    ends = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)]
    assert starts == [4, *ends[:-1]]
    assert ends[-1] < size
    assert columns[0].total_compressed_size > n * d * 2


@settings(max_examples=25, deadline=None)
@given(
    numbers=st.lists(st.integers(-(2**60), 2**60), min_size=20, max_size=20),
    texts=st.lists(st.text(), min_size=20, max_size=20),
    name=st.text(min_size=1, max_size=300),
)
def test_a_footer_is_written_back_as_it_was_read(numbers: list[int], texts: list[str], name: str):
    table = {"a": numbers, "b": texts}
    sink = pa.BufferOutputStream()
    wide = pa.table({f"{name}{i}{key}": column for i in range(9) for key, column in table.items()})
    pq.write_table(wide, sink, row_group_size=7)
    file = sink.getvalue().to_pybytes()
    length = int.from_bytes(file[-8:-4], "little")
    footer = file[-8 - length : -8]
    reader = Reader(footer)
    assert encode(reader.struct()) == footer
    assert reader.at == length


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 400), d=st.integers(1, 300))
def test_memory_map_equals_the_column_for_any_shape(tmp_path_factory: pytest.TempPathFactory, n: int, d: int):
    path = tmp_path_factory.mktemp("shape") / "a.parquet"
    rows = rows_of(n, d, seed=n * 1000 + d)
    write_shard(path, rows, "float16", {})
    assert isinstance(Shard(path).vectors, np.memmap)
    assert (Shard(path).vectors == rows.vectors).all()


def test_a_row_takes_at_most_sixteen_bytes_more_than_its_vector(tmp_path: Path):
    n, d = 4096, 576
    rows = rows_of(n, d)
    # As a harvest writes them: tokens and documents repeat, positions run.
    rows.columns["seq"][:] = np.arange(n) // 128
    rows.columns["pos"][:] = np.arange(n) % 128
    write_shard(tmp_path / "a.parquet", rows, "float16", {})
    assert (tmp_path / "a.parquet").stat().st_size / n <= 2 * d + 16


@pytest.mark.parametrize("change", [{"compression": "snappy"}, {"row_group_size": 64}, {"data_page_size": 128}])
def test_files_rewritten_by_other_tools_are_still_read_correctly(tmp_path: Path, change: dict):
    rows = rows_of(300, 5)
    write_shard(tmp_path / "ours.parquet", rows, "float16", {})
    pq.write_table(pq.read_table(tmp_path / "ours.parquet"), tmp_path / "theirs.parquet", **change)
    assert (np.asarray(Shard(tmp_path / "theirs.parquet").vectors) == rows.vectors).all()


def test_duckdb_reads_the_columns(tmp_path: Path):
    rows = rows_of(50, 3)
    write_shard(tmp_path / "a.parquet", rows, "float16", {})
    query = f"SELECT count(*), sum(pos), min(octet_length(activation)) FROM '{tmp_path}/a.parquet'"
    assert duckdb.sql(query).fetchall()[0] == (50, int(rows.columns["pos"].sum()), 6)


@pytest.mark.parametrize("n_bytes", [0, 10, 500])
def test_a_truncated_shard_is_refused_in_one_line(tmp_path: Path, n_bytes: int):
    write_shard(tmp_path / "a.parquet", rows_of(50, 3), "float16", {})
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:n_bytes])
    with pytest.raises(UsageError, match="harvest again"):
        Shard(tmp_path / "a.parquet")


def test_a_parquet_file_that_is_no_shard_is_refused(tmp_path: Path):
    duckdb.sql(f"COPY (SELECT 1 AS x) TO '{tmp_path}/a.parquet'")
    with pytest.raises(UsageError, match="format None"):
        Shard(tmp_path / "a.parquet")


def test_vectors_of_another_dtype_are_a_programming_error(tmp_path: Path):
    with pytest.raises(ValueError, match="float16 shard takes"):
        write_shard(tmp_path / "a.parquet", rows_of(5, 3, "float32"), "float16", {})
