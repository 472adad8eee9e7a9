"""References to sources: a file, folder, glob, URL or fetched wheel, as documents in a seeded order."""

import glob
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from activations.corpora import CORPORA
from activations.documents import Document, Source, TextConfig
from activations.formats import READERS
from activations.rows import first_line
from activations.sources import streamed
from activations.text_files import KINDS, TextFile, files_hash, local_file, opened
from store.assets import resolve
from store.errors import UsageError

VERSION_KEYS = (
    *("ETag", "etag", "checksum", "Content-MD5", "md5Hash", "md5", "sha256", "CRC", "blob_id", "generation"),
    *("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified", "created"),
)
"""What file systems say of a file that changes when its content does."""
WAYS = f"give a file, a folder, a glob, a URL, wheel:NAME, dataset:ORG/NAME, or one of {', '.join(CORPORA)}"

log = logging.getLogger(__name__)


def local_source(reference: str, cfg: TextConfig) -> Source:
    """A file, all text files in a folder and below, or those that a glob finds.

    Raises:
        UsageError: there is none, no text in it, or it is damaged.
    """
    path = Path(os.path.expanduser(reference))
    # Not Path.exists, which raises where a name is too long.
    if os.path.isdir(path):
        return _folder(path, [file for file in path.rglob("*") if file.is_file()], reference, cfg)
    if os.path.exists(path):
        file = local_file(path, path.parent)
        return _source(file.stem, reference, [file], cfg)
    found = [Path(file) for file in glob.glob(str(path), recursive=True) if os.path.isfile(file)]
    if not found:
        raise UsageError(f"{reference} does not exist: {WAYS}")
    return _folder(Path(*_before_wild_card(path.parts)), found, reference, cfg)


def wheel_source(reference: str, cfg: TextConfig) -> Source:
    """A file of a fetched wheel, or all its text files.

    Raises:
        UsageError: no such wheel or file, no network and not fetched yet, or it is damaged.
    """
    wheel, _, name = reference.partition("/")
    folder = resolve(f"wheel:{wheel}")
    if ".." in PurePosixPath(name).parts or not os.path.exists(folder / name.lstrip("/")):
        there = ", ".join(file.name for file in sorted(folder.glob("[!.]*"))) or folder.name
        raise UsageError(f"wheel:{wheel} has no file '{name}': there is {there}")
    return local_source(str(folder / name.lstrip("/")), cfg)


def remote_source(url: str, cfg: TextConfig) -> Source:
    """What a URL names, through fsspec: a file, a folder, or a glob.

    Raises:
        UsageError: its scheme is unknown or needs a package, it cannot be reached, or it holds no text.
    """
    system, path = _file_system(url)
    if isinstance(system, LocalFileSystem):
        return local_source(path, cfg)
    info = _info(system, path, url)
    if info is not None and info["type"] != "directory":
        file = _remote_file(system, path, PurePosixPath(_url_path(path)).name, info)
        return _source(file.stem, url, [file], cfg)
    look, base = (system.glob, "/".join(_before_wild_card(path.split("/")))) if info is None else (system.find, path)
    infos = _asked(url, lambda: look(path, detail=True))
    files = [
        _remote_file(system, file, file.removeprefix(base.rstrip("/")).lstrip("/"), info)
        for file, info in sorted(infos.items())
        if info["type"] == "file"
    ]
    return _source(PurePosixPath(base).stem or url, url, _readable(files, url), cfg)


def _source(name: str, reference: str, files: Sequence[TextFile], cfg: TextConfig) -> Source:
    readers = [file.reader for file in files]

    def read(order: random.Random | None) -> Iterator[Document]:
        places = range(len(files))
        for place in places if order is None else order.sample(places, len(places)):
            with opened(files[place]) as open_file:
                yield from readers[place](open_file, cfg)

    return streamed(name, reference, files_hash(files), read)


def _folder(base: Path, found: Sequence[Path], reference: str, cfg: TextConfig) -> Source:
    files = [local_file(file, base) for file in sorted(found)]
    return _source(base.resolve().stem or reference, reference, _readable(files, reference), cfg)


def _readable(files: Sequence[TextFile], reference: str) -> list[TextFile]:
    """The files of a known kind, hidden ones left out."""
    kept = [file for file in files if file.suffix in READERS and not file.is_hidden]
    if not kept:
        raise UsageError(f"{reference} has no {KINDS} file: name a folder that has")
    log.info("%s: %d files to read, %d hidden or of another kind", reference, len(kept), len(files) - len(kept))
    return kept


def _remote_file(system: Any, path: str, name: str, info: Mapping[str, Any]) -> TextFile:
    url = system.unstrip_protocol(path)
    # Every file system has its own exceptions, in packages that may not be installed.
    return TextFile(url, name, partial(system.open, path, "rb"), partial(_version, url, info), errors=Exception)


def _version(url: str, info: Mapping[str, Any]) -> str:
    """What is known of a remote file without reading it."""
    known = [f"{key}={info[key]}" for key in VERSION_KEYS if info.get(key) is not None]
    if not known:
        log.warning("%s has no checksum and no time: another text of its size will pass for the same", url)
    return " ".join([url, f"size={info.get('size')}", *known])


def _file_system(url: str) -> tuple[Any, str]:
    try:
        system, path = fsspec.url_to_fs(url)
    except ImportError as error:
        package = error.__cause__.name if isinstance(error.__cause__, ImportError) else None
        advice = f"pip install {package}" if package else "install what it names"
        raise UsageError(f"{url} needs a package that is not here ({first_line(error)}): {advice}") from error
    except ValueError as error:
        raise UsageError(f"{url} cannot be opened ({first_line(error)}): {WAYS}") from error
    return system, path


def _info(system: Any, path: str, url: str) -> Mapping[str, Any] | None:
    """What the file system says of a path; None for a glob."""

    def ask() -> Any:
        try:
            return system.info(path)
        except FileNotFoundError:
            # Only now: a query string is no wild card, though it begins with a question mark.
            if glob.has_magic(path):
                return None
            raise

    return _asked(url, ask)


def _asked(url: str, ask: Callable[[], Any]) -> Any:
    """What a file system answers."""
    try:
        return ask()
    except FileNotFoundError as error:
        raise UsageError(f"{url} does not exist or cannot be reached: check the address and the network") from error
    except Exception as error:  # Every file system has its own, in packages that may not be installed.
        raise UsageError(
            f"{url} cannot be reached ({type(error).__name__}: {first_line(error)}): check the network and your "
            "credentials, and run again"
        ) from error


def _url_path(path: str) -> str:
    """The part of a web address that names a file, without its query."""
    return urlsplit(path).path if "://" in path else path


def _before_wild_card(parts: Sequence[str]) -> list[str]:
    """The folders of a glob before its first wild card."""
    end = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return list(parts[:end])
