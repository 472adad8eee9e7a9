"""Batches as they are written down, one JSON file each, so that processes that ask the same send it once.

Whoever sends a batch, or looks for one that may have been sent, holds the lock of its file meanwhile. The system lets
go of the locks of a process that was killed: a batch without an id whose lock is free has lost its sender.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from store.files import read_json, write_json


@dataclass(frozen=True)
class Record:
    """One batch."""

    label: str
    service: str
    submitted: str
    """When it was about to be sent, ISO 8601."""
    custom_ids: tuple[str, ...]
    batch_id: str | None = None
    """None until the service has told: whether it arrived is not known then."""
    again: tuple[str, ...] = ()
    """Of its requests, those it did not answer: they go into another batch."""


class Records:
    """The batches of one service in `folder`."""

    def __init__(self, folder: Path, service: str) -> None:
        self.folder, self.service = folder, service
        self._read: dict[str, Record] = {}
        self._where: dict[str, str] = {}
        self._locks: dict[str, FileLock] = {}

    def claim(self, names: Iterable[str], size: int) -> tuple[list[Record], list[Record]]:
        """The batches that have some of the requests `names`, and new ones, of at most `size`, of those that none has.

        The caller is the sender of the new ones: it holds them until `release`.
        """
        with self._alone():
            self._refresh()
            names = list(names)
            held = dict.fromkeys(self._where[name] for name in names if name in self._where)
            free = [name for name in names if name not in self._where]
            new = [self._begin(free[start : start + size]) for start in range(0, len(free), size)]
        return [self._read[label] for label in held], new

    def take(self, record: Record) -> bool:
        """Hold `record`, if nobody does."""
        lock = FileLock(self.folder / f"{record.label}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._locks[record.label] = lock
        return True

    def release(self, label: str) -> None:
        """Let go of the record called `label`, if it is held here."""
        lock = self._locks.pop(label, None)
        if lock is not None:
            lock.release()

    def reread(self, record: Record) -> Record | None:
        """`record` as it stands now; None if it was forgotten."""
        with self._alone():
            return self._reread(record.label)

    def sent(self, record: Record, batch_id: str) -> Record:
        """Writes down the id of a batch that arrived."""
        return self._change(record, lambda now: replace(now, batch_id=batch_id))

    def unanswered(self, record: Record, names: tuple[str, ...]) -> Record:
        """Writes down that the requests `names` have to go into another batch."""
        return self._change(record, lambda now: replace(now, again=tuple(dict.fromkeys(now.again + names))))

    def forget(self, record: Record) -> None:
        """Of a batch that never was."""
        with self._alone():
            self.path(record.label).unlink(missing_ok=True)
            self._drop(record.label)

    def _begin(self, names: list[str]) -> Record:
        now = datetime.now(UTC).isoformat()
        record = Record(f"monosem-{uuid.uuid4().hex}", self.service, now, tuple(names))
        self.take(record)
        return self._write(record)

    def _change(self, record: Record, change: Callable[[Record], Record]) -> Record:
        with self._alone():
            return self._write(change(self._reread(record.label) or record))

    def _alone(self) -> FileLock:
        """No two processes may find the same request free, or change a record from the same state."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "lock")

    def path(self, label: str) -> Path:
        """Where the record called `label` is written down."""
        return self.folder / f"{label}.json"

    def _refresh(self) -> None:
        """Reads what other processes have written since, and drops what they have forgotten."""
        paths = {path.stem: path for path in sorted(self.folder.glob("*.json"))}
        for label in self._read.keys() - paths.keys():
            self._drop(label)
        for label in paths:
            if label not in self._read:
                self._reread(label)

    def _reread(self, label: str) -> Record | None:
        path = self.path(label)
        if not path.exists():
            self._drop(label)
            return None
        found = read_json(path)
        record = Record(**found | {name: tuple(found[name]) for name in ("custom_ids", "again")})
        self._enter(record)
        return record

    def _write(self, record: Record) -> Record:
        write_json(self.path(record.label), asdict(record))
        self._enter(record)
        return record

    def _drop(self, label: str) -> None:
        self._read.pop(label, None)
        self._where = {name: where for name, where in self._where.items() if where != label}

    def _enter(self, record: Record) -> None:
        self._read[record.label] = record
        if record.service != self.service:
            return
        for custom_id in record.custom_ids:
            if custom_id not in record.again:
                self._where.setdefault(custom_id, record.label)
            elif self._where.get(custom_id) == record.label:
                del self._where[custom_id]
