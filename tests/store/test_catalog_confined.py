"""Queries of the catalogue can change nothing, and reach nothing outside the root."""

from pathlib import Path

import pytest

from store.catalog import Catalog
from store.errors import UsageError


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM nowhere",
        "SELECT",
        "",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/x.parquet'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_text('ROOT/../other')",
        "SELECT * FROM read_text('ROOT-other/secret')",
        "COPY runs TO '/tmp/stolen.csv'",
        "COPY runs TO 'ROOT/stolen.csv'",
        "COPY (PIVOT runs ON kind USING count(*)) TO 'ROOT/stolen.csv'",
        "EXPLAIN ANALYZE COPY runs TO 'ROOT/stolen.csv'",
        "EXPORT DATABASE 'ROOT/stolen'",
        "ATTACH '/tmp/other.duckdb'",
        "ATTACH 'ROOT/other.duckdb'",
        "ATTACH ':memory:' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
        "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET threads = 1",
        "RESET allowed_directories",
        "PRAGMA threads = 1",
        "CALL enable_logging()",
        "SELECT * FROM enable_logging(storage = 'file', storage_path = 'ROOT/logs')",
        "FROM \"ENABLE_LOGGING\"(storage = 'file', storage_path = 'ROOT/logs')",
        "FROM U&\"enable\\005flogging\"(storage = 'file', storage_path = 'ROOT/logs')",
        "FROM query('FROM enable_' || 'logging(storage = ''file'', storage_path = ''ROOT/logs'')')",
        "FROM query(e'FROM enable\\x5flogging(storage = ''file'', storage_path = ''ROOT/logs'')')",
        "SELECT (SELECT count(*) FROM query(concat('FROM enable_', 'logging(storage = ''file'')')))",
        "WITH a AS (FROM \"query\"(concat('FROM enable_', 'logging()'))) FROM a",
        "SELECT * FROM enable_profiling(save_location = 'ROOT/profile.json')",
        "CREATE TABLE mine (x INT)",
        "CREATE TEMP TABLE mine (x INT)",
        "DROP VIEW rows",
        "DROP VIEW compared",
        "INSERT INTO no_figures (run) VALUES ('x')",
        "COPY figures TO 'ROOT/stolen.parquet'",
        "INSERT INTO runs (id) VALUES ('x')",
        "WITH x AS (INSERT INTO runs (id) VALUES ('x') RETURNING id) SELECT * FROM x",
        "COMMIT",
    ],
)
def test_queries_change_nothing_and_reach_nothing_outside_the_root(root: Path, opened: Catalog, query: str):
    before = sorted(root.rglob("*"))
    for ask in (opened.sql, opened.arrow, opened.vectors):
        with pytest.raises(UsageError, match="cannot be answered"):
            ask(query.replace("ROOT", str(root.resolve())))
    assert sorted(root.rglob("*")) == before
    assert len(opened.sql("SELECT * FROM runs")) == 3


def test_a_text_bound_to_a_query_is_not_run(root: Path, opened: Catalog):
    """Where the index's files are, DuckDB 1 could write logs."""
    before = sorted(root.rglob("*"))
    text = f"FROM enable_logging(storage = 'file', storage_path = '{root.resolve()}/logs')"
    with pytest.raises(UsageError, match="cannot be answered"):
        opened.arrow("FROM query(?)", [text])
    assert sorted(root.rglob("*")) == before


def test_describing_is_reading(opened: Catalog):
    assert "file_row_number" not in opened.sql("DESCRIBE rows")["column_name"].tolist()
    assert "activation" not in opened.sql("DESCRIBE rows")["column_name"].tolist()
    assert len(opened.sql("SHOW TABLES")) >= 7
