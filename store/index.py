"""The published feature index: one immutable DuckDB file per version and a pointer to the current one.

Batch jobs write Parquet parts; `publish` builds `index.<version>.duckdb` from them and then swaps `CURRENT`, so a
reader sees the old version or the new one, and never a lock: DuckDB refuses all readers while one process writes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from store.confined import quoted, spill_folder
from store.errors import UsageError
from store.files import remove_partials, whole_file
from store.index_tables import FEATURES, PUBLISHED, SCHEMAS, SORTED_BY
from store.published import opened
from store.run import Run, list_runs

CURRENT = "CURRENT"
ANNOTATIONS = ("explanations", "scores", "plane")
"""Kinds of run that add rows to an index after it was built."""
NEWEST_ONLY = ("plane",)
"""Those of which a newer run takes the place of an older one."""
PARTS = "parts"
KEPT_VERSIONS = 2
"""Published files kept: the current one and the one a reader may still be opening."""
BUILD_MEMORY, BUILD_THREADS = "512MB", 4
"""What publishing may take: DuckDB would sort in most of the machine's memory, and spills what does not fit. Each
thread holds some rows, so that on a machine of many cores as many would not fit."""
LOOKUP_ROWS = 16_384
"""Rows of a published table that a look-up of one latent goes through at least: an eighth of DuckDB's own choice."""
GROUP_ROWS = 16_384
"""Rows of `events` in a row group: what reading one latent's reads at least."""
SAID_ROWS = 256
"""Rows of `explanations` in a row group: what reading one explanation reads at least."""
EVENT_ENCODINGS = {
    "latent": "DELTA_BINARY_PACKED",
    "seq": "DELTA_BINARY_PACKED",
    "pos": "DELTA_BINARY_PACKED",
    "doc_id": "DELTA_BINARY_PACKED",
    "value": "BYTE_STREAM_SPLIT",
}
"""Columns are sorted by latent, and within one by place; values share their first byte or two."""
LAYOUT: dict[str, dict[str, Any]] = {
    "events": {"row_group_size": GROUP_ROWS, "use_dictionary": False, "column_encoding": EVENT_ENCODINGS},
    "explanations": {"row_group_size": SAID_ROWS},
}
"""How the parts of a table are written where it is not in the usual way."""


def part_path(folder: Path, table: str, number: int | None = None) -> Path:
    """One part of a table, of the latents of range `number` where it has several."""
    return folder / PARTS / (f"{table}.parquet" if number is None else f"{table}-{number:05d}.parquet")


def write_part(folder: Path, table: str, columns: Mapping[str, Any], number: int | None = None) -> None:
    """Write one part of a table as Parquet.

    Args:
        folder: of the run that makes it.
        table: a name in `SCHEMAS`.
        columns: arrays or lists by column name, all of one length.
        number: of the range of latents, where there are several.
    """
    schema = SCHEMAS[table]
    data = pa.table({name: _array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)
    with whole_file(part_path(folder, table, number)) as scratch:
        pq.write_table(data, scratch, compression="zstd", **LAYOUT.get(table, {}))


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return array if array.type == kind else array.cast(kind)


def publish(index: Run) -> None:
    """Bring the published version up to the index's parts and every finished run that adds to it.

    Does nothing where the current version already holds them, so it may be called after every job, and again after a
    kill between a job's end and its publication.
    """
    with FileLock(index.folder.parent / f".{index.folder.name}.publish.lock"):
        annotations = _annotations(index)
        if _published(index.folder) == {index.id, *(run.id for run in annotations)}:
            return
        remove_partials(index.folder)
        versions = sorted(filter(_version, index.folder.glob("index.*.duckdb")), key=_version)
        target = index.folder / f"index.{_version(versions[-1]) + 1 if versions else 1}.duckdb"
        with whole_file(target) as scratch:
            _build(scratch, _parts(index, annotations), [index, *annotations])
        with whole_file(index.folder / CURRENT) as scratch:
            scratch.write_text(target.name, encoding="utf-8")
        for old in versions[: -KEPT_VERSIONS + 1]:
            old.unlink(missing_ok=True)


def _annotations(index: Run) -> list[Run]:
    """The runs that add rows to this index."""
    found = []
    for kind in ANNOTATIONS:
        own = [run for run in list_runs(index.root, kind) if run.inputs.get("index") == index.id]
        found += own[-1:] if kind in NEWEST_ONLY else own
    return found


def published_whole(folder: Path) -> bool:
    """Whether every block of the current version can be read: each has a checksum of its own."""
    try:
        published = opened(folder / (folder / CURRENT).read_text(encoding="utf-8").strip())
        with published.lock:
            cursor = published.connection.cursor()
        for name in (*PUBLISHED, "features"):
            cursor.execute(f"SELECT count(hash(t)) FROM published.{name} t").fetchall()
    except (OSError, duckdb.Error):
        return False
    return True


def _published(folder: Path) -> set[str]:
    """Ids of the runs in the current version; none where nothing readable is published."""
    try:
        return opened(folder / (folder / CURRENT).read_text(encoding="utf-8").strip()).ids()
    except (FileNotFoundError, duckdb.Error):
        return set()


def _version(path: Path) -> int:
    """Its number; 0 for a file of somebody else's."""
    found = re.fullmatch(r"index\.(\d+)\.duckdb", path.name)
    return int(found[1]) if found else 0


def _parts(index: Run, annotations: Sequence[Run]) -> dict[str, list[Path]]:
    """The Parquet files of each table."""
    parts: dict[str, list[Path]] = {}
    for path in sorted((index.folder / PARTS).glob("*.parquet")):
        parts.setdefault(path.stem.split("-")[0], []).append(path)
    for run in annotations:
        for path in sorted((run.folder / PARTS).glob("*.parquet")):
            parts.setdefault(path.stem.split("-")[0], []).append(path)
    return parts


def part_paths(folder: Path, table: str) -> list[Path]:
    """The parts of a table that the run in `folder` wrote, in order; none where it wrote none."""
    return sorted((folder / PARTS).glob(f"{table}-*.parquet")) or sorted((folder / PARTS).glob(f"{table}.parquet"))


def parts_of(folder: Path, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a table that the run in `folder` wrote, in order of its parts; none where it wrote none.

    Args:
        folder: of the run.
        table: a name in `SCHEMAS`.
        columns: that are read, in the table's order; all of them unless told. Numbers of 100,000 latents take little
            memory; texts, documents and examples are for `batches_of`.
    """
    empty = SCHEMAS[table].empty_table()
    some = empty if columns is None else empty.select([name for name in empty.column_names if name in set(columns)])
    found = [pq.read_table(path, columns=some.column_names) for path in part_paths(folder, table)]
    return pa.concat_tables([some, *found])


def batches_of(folder: Path, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The same rows, at most `SAID_ROWS` of them in memory at a time; these columns of them."""
    for path in part_paths(folder, table):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(SAID_ROWS, columns=list(columns), use_threads=False)


def _build(file: Path, parts: Mapping[str, Sequence[Path]], runs: Sequence[Run]) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{BUILD_MEMORY}'")
        connection.execute(f"SET threads = {BUILD_THREADS}")
        connection.execute(f"SET temp_directory = {quoted(spill_folder().as_posix())}")
        connection.execute(f"ATTACH {quoted(str(file))} AS made (ROW_GROUP_SIZE {LOOKUP_ROWS})")
        connection.execute("USE made")
        for name in PUBLISHED:
            schema, files = SCHEMAS[name], [str(path) for path in parts.get(name, [])]
            if files:
                query = f"CREATE TABLE {name} AS SELECT {', '.join(schema.names)} FROM read_parquet(?)"
                try:
                    connection.execute(f"{query} ORDER BY {SORTED_BY[name]}", [files])
                except duckdb.Error as error:
                    raise UsageError(
                        f"table {name} cannot be published ({str(error).splitlines()[0]}): `monosem verify RUN` names "
                        f"what is damaged, of {', '.join(run.id for run in runs)}; an index is mended with `monosem "
                        "index --repair`, another run is deleted and made again"
                    ) from error
            else:
                connection.register("empty", schema.empty_table())
                connection.execute(f"CREATE TABLE {name} AS SELECT * FROM empty")
                connection.unregister("empty")
        connection.execute("CREATE TABLE runs (id VARCHAR, kind VARCHAR, finished_at VARCHAR)")
        connection.executemany(
            "INSERT INTO runs VALUES (?, ?, ?)", [[run.id, run.kind, run.manifest["finished_at"]] for run in runs]
        )
        connection.execute(FEATURES)
