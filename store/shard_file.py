"""The bytes of a shard: what Arrow would write, with the vectors taken from memory as they lie there.

Arrow copies a column several times on its way to the file, which takes longer than the disk does. So it writes a twin
in memory whose vectors are one byte wide; header and footer of the twin are brought to the true width, and the vectors
go between them untouched. Every reader of Parquet must find the file to be an ordinary one: see the tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store.thrift import BINARY, LIST, STRUCT, Reader, Struct, encode

MAGIC = b"PAR1"
FOOTER_LENGTH_BYTES = 4
# Fields of parquet.thrift that say how large a thing is, or where it lies.
PAGE_SIZES = (2, 3)
FILE_SCHEMA, FILE_ROW_GROUPS, FILE_METADATA = 2, 4, 5
SCHEMA_WIDTH = 2
GROUP_COLUMNS, GROUP_SIZES, GROUP_OFFSET = 1, (2, 6), 5
COLUMN_OFFSET, COLUMN_META = 2, 3
META_SIZES, META_OFFSETS = (6, 7), (9, 10, 11)


@dataclass(frozen=True)
class ShardBytes:
    """A shard as three stretches of bytes, to be written one after the other."""

    head: bytes
    vectors: memoryview
    tail: bytes

    @property
    def parts(self) -> tuple[bytes | memoryview, ...]:
        """In order."""
        return self.head, self.vectors, self.tail


def shard_bytes(
    vectors: np.ndarray, name: str, columns: Mapping[str, pa.Array], metadata: Mapping[str, str], compression: str
) -> ShardBytes:
    """The Parquet file of one row group whose first column is `vectors`, plain and in one page.

    Args:
        vectors: `[n, d_in]`, n > 0.
        name: of their column, `FIXED_LEN_BYTE_ARRAY(d_in · itemsize)`, never null.
        columns: the others, without nulls, each `[n]`.
        metadata: of the file.
        compression: of the others.
    """
    vectors = np.ascontiguousarray(vectors)
    n, width = len(vectors), vectors.shape[1] * vectors.itemsize
    twin = _twin(n, name, columns, compression)
    start, footer_start = len(MAGIC), _footer_start(twin)
    page = Reader(twin, start)
    header = page.struct()
    footer = Reader(twin, footer_start).struct()
    old_chunk = (page.at - start) + n
    for field in PAGE_SIZES:
        header[field] = (header[field][0], n * width)
    new_header = encode(header)
    grown = len(new_header) + n * width - old_chunk
    _widen(footer, width, grown)
    footer[FILE_METADATA] = (LIST, (STRUCT, [_pair(key, value) for key, value in metadata.items()]))
    new_footer = encode(footer)
    return ShardBytes(
        MAGIC + new_header,
        vectors.data.cast("B"),
        twin[page.at + n : footer_start] + new_footer + len(new_footer).to_bytes(FOOTER_LENGTH_BYTES, "little") + MAGIC,
    )


def _pair(key: str, value: str) -> Struct:
    return {1: (BINARY, key.encode()), 2: (BINARY, value.encode())}


def _twin(n: int, name: str, columns: Mapping[str, pa.Array], compression: str) -> bytes:
    narrow = pa.FixedSizeBinaryArray.from_buffers(pa.binary(1), n, [None, pa.py_buffer(bytes(n))])
    arrays = {name: narrow, **columns}
    fields = [pa.field(key, array.type, nullable=False) for key, array in arrays.items()]
    options: dict[str, Any] = {
        "compression": {name: "none", **dict.fromkeys(columns, compression)},
        "use_dictionary": list(columns),
        "write_statistics": list(columns),
        # Arrow's own copy of the schema would tell the twin's width; the file's metadata would go with it.
        "store_schema": False,
    }
    sink = pa.BufferOutputStream()
    table = pa.Table.from_arrays(list(arrays.values()), schema=pa.schema(fields))
    pq.write_table(
        table, sink, row_group_size=n, max_rows_per_page=n, write_batch_size=n, data_page_size=n + 1, **options
    )
    return sink.getvalue().to_pybytes()


def _footer_start(file: bytes) -> int:
    end = len(file) - len(MAGIC) - FOOTER_LENGTH_BYTES
    return end - int.from_bytes(file[end : end + FOOTER_LENGTH_BYTES], "little")


def _widen(footer: Struct, width: int, grown: int) -> None:
    """Tell the footer that the first column's values have `width` bytes and its chunk is longer by `grown`."""
    schema = footer[FILE_SCHEMA][1][1]
    # The first element is the root; the second our first column.
    schema[1][SCHEMA_WIDTH] = (schema[1][SCHEMA_WIDTH][0], width)
    (group,) = footer[FILE_ROW_GROUPS][1][1]
    _add(group, GROUP_SIZES, grown)
    first, *others = group[GROUP_COLUMNS][1][1]
    _add(first[COLUMN_META][1], META_SIZES, grown)
    for column in others:
        _add(column, (COLUMN_OFFSET,), grown)
        _add(column[COLUMN_META][1], META_OFFSETS, grown)


def _add(struct: Struct, fields: tuple[int, ...], amount: int) -> None:
    for field in fields:
        # Zero is how writers say that they do not.
        if field in struct and struct[field][1]:
            struct[field] = (struct[field][0], struct[field][1] + amount)
