"""Activation shards: Parquet files whose vector column is also a memory map (activation format, version 1)."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import UsageError
from store.files import FileEntry, write_hashed
from store.shard_file import shard_bytes

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
VECTOR_COLUMN = "activation"
WRITERS = 2
"""Shards under way at once: while one waits for the disk, another is copied."""
COMPRESSION = "zstd"
"""Of all columns but the vectors."""
DTypeName = Literal["float16", "bfloat16", "float32"]
# NumPy has no bfloat16: its sixteen bits are stored as they are, with the name in the metadata.
STORED_AS = {"float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2"), "float32": np.dtype("<f4")}
ROW_COLUMNS = {
    "token_id": pa.int32(),
    "doc_id": pa.int64(),
    "seq": pa.int32(),
    "pos": pa.int32(),
    "token_class": pa.int8(),
}
TOKEN_CLASSES = {"normal": 0, "special": 1, "role": 2, "sink": 3}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Vectors and what joins each of them to its text."""

    vectors: np.ndarray
    """`[n, d_in]` in one of the stored dtypes."""
    columns: dict[str, np.ndarray]
    """`[n]` for each of `token_id doc_id seq pos token_class`."""

    def __len__(self) -> int:
        return len(self.vectors)

    def tensor(self, rows: np.ndarray, dtype: str) -> "torch.Tensor":
        """`[len(rows), d_in]`: some of the vectors, in the `dtype` they are stored in."""
        import torch

        return as_torch(self.vectors, dtype).index_select(0, torch.from_numpy(rows))

    def take(self, order: np.ndarray) -> "Rows":
        """The rows at `order`, in that order."""
        columns = {name: column[order] for name, column in self.columns.items()}
        return Rows(vectors=self.vectors[order], columns=columns)

    def cut(self, start: int, stop: int) -> "Rows":
        """Rows `start` to `stop`, without a copy."""
        columns = {name: column[start:stop] for name, column in self.columns.items()}
        return Rows(vectors=self.vectors[start:stop], columns=columns)


def write_shard(path: Path, rows: Rows, dtype: DTypeName, metadata: Mapping[str, str]) -> FileEntry:
    """Write `rows` as one row group with one plain, uncompressed page of vectors; its size and checksum.

    Raises:
        ValueError: the vectors are not `[n, d_in]` of the dtype's stored form, or there are none.
        UsageError: the disk is full, or the folder cannot be written.
    """
    stored = STORED_AS[dtype]
    if rows.vectors.ndim != 2 or rows.vectors.dtype != stored or not len(rows):
        raise ValueError(f"vectors are {rows.vectors.dtype}{rows.vectors.shape}: a {dtype} shard takes {stored}[n, d]")
    others = {name: pa.array(rows.columns[name], type=kind) for name, kind in ROW_COLUMNS.items()}
    described = {
        "monosem.format": str(FORMAT_VERSION),
        "monosem.dtype": dtype,
        "monosem.d_in": str(rows.vectors.shape[1]),
        **{f"monosem.{key}": value for key, value in metadata.items()},
    }
    parts = shard_bytes(rows.vectors, VECTOR_COLUMN, others, described, COMPRESSION).parts
    return write_hashed(path, parts)


class ShardToWrite(NamedTuple):
    """The arguments of `write_shard`, but for the dtype."""

    path: Path
    rows: Rows
    metadata: Mapping[str, str]


def write_shards(shards: Sequence[ShardToWrite], dtype: DTypeName) -> list[FileEntry]:
    """Write several shards, one being brought to the disk while the next one is copied.

    Raises:
        UsageError: the disk is full, or the folder cannot be written. Some of the others may have been written.
    """
    with ThreadPoolExecutor(WRITERS) as writers:
        return list(writers.map(lambda shard: write_shard(shard.path, shard.rows, dtype, shard.metadata), shards))


class Shard:
    """A shard opened for reading: vectors as a memory map, the other columns on demand."""

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            UsageError: not a Parquet file, not a shard, or of a format this version cannot read.
        """
        try:
            self._file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise UsageError(
                f"{path} is not a readable shard ({error}): `monosem harvest --repair` its run, or harvest again"
            ) from error
        self.path = path
        described: dict[bytes, bytes] = self._file.schema_arrow.metadata or {}
        self.metadata = {
            key.decode().removeprefix("monosem."): value.decode()
            for key, value in described.items()
            if key.startswith(b"monosem.")
        }
        if self.metadata.get("format") != str(FORMAT_VERSION):
            raise UsageError(
                f"{path} has shard format {self.metadata.get('format')}, this monosem reads "
                f"{FORMAT_VERSION}: harvest again"
            )
        self.dtype: str = self.metadata["dtype"]
        self.d_in = int(self.metadata["d_in"])
        self.n_rows: int = self._file.metadata.num_rows

    @cached_property
    def vectors(self) -> np.ndarray:
        """`[n_rows, d_in]` in the stored dtype: a private memory map where the layout allows it, else a copy."""
        groups = [self._memory_map(group) for group in range(self._file.num_row_groups)]
        if any(group is None for group in groups):
            return self._through_arrow()
        maps = [group for group in groups if group is not None]
        return maps[0] if len(maps) == 1 else np.concatenate(maps)

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """`token_id doc_id seq pos token_class`, each `[n_rows]`."""
        table = self._file.read(columns=list(ROW_COLUMNS))
        return {name: table.column(name).to_numpy() for name in ROW_COLUMNS}

    def _memory_map(self, group: int) -> np.ndarray | None:
        """The row group's vectors without a copy, or None where the file was not written in our layout."""
        stored = STORED_AS[self.dtype]
        meta: Any = self._file.metadata.row_group(group)
        column = meta.column(0)
        n_bytes = meta.num_rows * self.d_in * stored.itemsize
        header = column.total_compressed_size - n_bytes
        plain = column.compression == "UNCOMPRESSED" and set(column.encodings) <= {"PLAIN", "RLE"}
        # One page header is a few dozen bytes: more means several pages, whose payload is not contiguous.
        if column.path_in_schema != VECTOR_COLUMN or not plain or not 0 < header < 64:
            return None
        offset = column.data_page_offset + header
        # Copy on write: a tensor over it may not be read-only, and nothing written to it reaches the file.
        return np.memmap(self.path, stored, "c", offset, (meta.num_rows, self.d_in))

    def _through_arrow(self) -> np.ndarray:
        column = self._file.read(columns=[VECTOR_COLUMN]).column(VECTOR_COLUMN).combine_chunks()
        chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        stored = STORED_AS[self.dtype]
        data = np.frombuffer(chunk.buffers()[1], stored)[chunk.offset * self.d_in :]
        # A copy, like a private map, may be written to.
        return data[: len(chunk) * self.d_in].reshape(-1, self.d_in).copy()


def float_rows(vectors: np.ndarray, dtype: str, rows: np.ndarray) -> "torch.Tensor":
    """Some of the stored vectors, in the order of `rows`, as float32."""
    import torch

    return as_torch(vectors, dtype).index_select(0, torch.from_numpy(rows)).float()


def as_torch(vectors: np.ndarray, dtype: str) -> "torch.Tensor":
    """Stored vectors as a tensor over the same memory."""
    import torch

    if dtype == "bfloat16":
        return torch.from_numpy(vectors.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(vectors)
