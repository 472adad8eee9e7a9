"""Just enough of Thrift's compact protocol to read a Parquet footer or page header, change a number, and write it back.

A struct becomes a dict from field id to `(type, value)`, a list `(type, values)`; whatever is not changed is written as
it was read. Apache Thrift, compact protocol specification.
"""

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
BOOLS = (TRUE, FALSE)
INTEGERS = (I16, I32, I64)
LONG_LIST = 15

Struct = dict[int, tuple[int, Any]]


class Reader:
    """Reads from some bytes onwards."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        """Begin at byte `at`."""
        self._data = data
        self.at = at
        """The next byte to read."""

    def struct(self) -> Struct:
        """A struct, whose stop byte is read too."""
        fields: Struct = {}
        field = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else self._zigzag()
            fields[field] = (kind, kind == TRUE if kind in BOOLS else self._value(kind))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in INTEGERS:
            return self._zigzag()
        if kind == BYTE:
            return self._byte()
        if kind == DOUBLE:
            return self._bytes(8)
        if kind == BINARY:
            return self._bytes(self._varint())
        if kind in (LIST, SET):
            return self._list()
        if kind == STRUCT:
            return self.struct()
        raise ValueError(f"Thrift type {kind} does not occur in a Parquet footer")

    def _list(self) -> tuple[int, list[Any]]:
        head = self._byte()
        size, kind = head >> 4, head & 15
        size = self._varint() if size == LONG_LIST else size
        # A boolean in a list is a byte of its own, unlike one in a struct.
        return kind, [self._byte() if kind in BOOLS else self._value(kind) for _ in range(size)]

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _bytes(self, n: int) -> bytes:
        self.at += n
        return self._data[self.at - n : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def encode(fields: Struct) -> bytes:
    """A struct with its stop byte."""
    out = bytearray()
    before = 0
    for field, (kind, value) in sorted(fields.items()):
        kind = (TRUE if value else FALSE) if kind in BOOLS else kind
        delta = field - before
        out += bytes([delta << 4 | kind]) if 0 < delta < 16 else bytes([kind]) + _zigzag(field)
        out += b"" if kind in BOOLS else _value(kind, value)
        before = field
    return bytes(out) + b"\0"


def _value(kind: int, value: Any) -> bytes:
    if kind in INTEGERS:
        return _zigzag(value)
    if kind == BYTE:
        return bytes([value])
    if kind == DOUBLE:
        return value
    if kind == BINARY:
        return _varint(len(value)) + value
    if kind in (LIST, SET):
        return _list(*value)
    return encode(value)


def _list(kind: int, values: list[Any]) -> bytes:
    n = len(values)
    head = bytes([n << 4 | kind]) if n < LONG_LIST else bytes([LONG_LIST << 4 | kind]) + _varint(n)
    return head + b"".join(bytes([value]) if kind in BOOLS else _value(kind, value) for value in values)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)
