"""One text file: how it is named, opened, taken out of its compression, and told from another."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from activations.formats import READERS, OpenFile, Reader
from activations.rows import first_line
from store.errors import UsageError
from store.hashing import sha256_texts
from store.remembered import remembered_sha256

DECOMPRESSORS: dict[str, Callable[[Any], Any]] = {
    ".bz2": bz2.BZ2File,
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".xz": lzma.LZMAFile,
    ".zst": lambda file: pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"),
}
"""By last suffix."""
COMPRESSION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
BUFFER_BYTES = 1 << 20
KINDS = ", ".join(READERS)


@dataclass(frozen=True)
class TextFile:
    """A file that is not open yet."""

    path: str
    """What errors call it."""
    name: str
    """Its path below the folder that was asked for; what its documents say they are from."""
    open_bytes: Callable[[], Any]
    identity: Callable[[], str]
    """SHA-256 of its bytes, or what a server says of its version."""
    errors: type[Exception] = OSError
    """What opening and reading it can raise."""

    @property
    def suffix(self) -> str:
        """Of the format, in lower case, that of a compression left out."""
        return _suffixes(self.name)[0]

    @property
    def stem(self) -> str:
        """Its name without folders and suffixes."""
        _, packed = _suffixes(self.name)
        return PurePosixPath(self.name[: -len(packed) or None]).stem

    @property
    def is_hidden(self) -> bool:
        """Whether its name, or a folder's below the one that was asked for, begins with a dot."""
        return any(part.startswith(".") for part in PurePosixPath(self.name).parts)

    @property
    def reader(self) -> Reader:
        """What turns its bytes into documents.

        Raises:
            UsageError: no reader knows its suffix.
        """
        if self.suffix not in READERS:
            known = f"{KINDS}, or one of them with {', '.join(DECOMPRESSORS)} after it"
            raise UsageError(f"{self.path} is not one of {known}: convert it first")
        return READERS[self.suffix]


def local_file(path: Path, base: Path) -> TextFile:
    """A file on disk, named by its path below `base`."""
    name = path.relative_to(base).as_posix()
    return TextFile(str(path), name, partial(path.open, "rb"), partial(remembered_sha256, path))


def files_hash(files: Sequence[TextFile]) -> str:
    """SHA-256 over names and content of files."""
    return sha256_texts(part for file in files for part in (file.name, file.identity()))


@contextmanager
def opened(file: TextFile) -> Iterator[OpenFile]:
    """The file, open for reading, without its compression.

    Raises:
        UsageError: it cannot be opened; and later, from any read, it cannot be read or unpacked.
    """
    _, packed = _suffixes(file.name)
    unreadable = f"{file.path} cannot be read: check that it is there and that you may read it"
    with ExitStack() as stack:
        try:
            raw = file.open_bytes()
        except file.errors as error:
            raise UsageError(f"{unreadable} ({first_line(error)})") from error
        stream = stack.enter_context(_buffered(raw, file.errors, unreadable))
        if packed:
            broken = f"{file.path} is damaged, cut off, or not a {packed} file: fetch or pack it again"
            stream = stack.enter_context(_buffered(DECOMPRESSORS[packed](stream), COMPRESSION_ERRORS, broken))
        yield OpenFile(stream, file.path, file.name, file.stem)


class _Checked(io.RawIOBase):
    """A stream whose failures are one line that a person can act on; one that is unpacked cannot seek."""

    def __init__(self, inner: Any, errors: Any, complaint: str) -> None:
        self._inner, self._errors, self._complaint = inner, errors, complaint
        self._can_seek = errors is not COMPRESSION_ERRORS and inner.seekable()

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Whether what reads Parquet may jump."""
        return self._can_seek

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As any file."""
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        """As any file."""
        return self._inner.tell()

    def readinto(self, buffer: Any) -> int:
        """As any file, but for the errors."""
        try:
            data = self._inner.read(len(buffer))
        except self._errors as error:
            raise UsageError(f"{self._complaint} ({first_line(error)})") from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close what is inside too."""
        if not self.closed:
            self._inner.close()
        super().close()


def _buffered(inner: Any, errors: Any, complaint: str) -> io.BufferedReader:
    return io.BufferedReader(_Checked(inner, errors, complaint), BUFFER_BYTES)


def _suffixes(name: str) -> tuple[str, str]:
    """Suffix of the format and of the compression, lower case."""
    path = PurePosixPath(name.lower())
    if path.suffix in DECOMPRESSORS:
        return PurePosixPath(path.stem).suffix, path.suffix
    return path.suffix, ""
