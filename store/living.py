"""Who is at work: each holds the lock of a file of its own, which the system frees when its process is gone."""

import uuid
import weakref
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout


class Living:
    """Members at work in `folder`: an object is one from its first `join` until it, or its process, ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = uuid.uuid4().hex
        self._lock: FileLock | None = None

    def join(self) -> str:
        """Be seen by others; the name to be known by."""
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / self.name, thread_local=False)
            lock.acquire()
            self._lock = lock
            weakref.finalize(self, _leave, lock)
        return self.name

    def gone(self, names: Iterable[str]) -> frozenset[str]:
        """Of members that joined once, those that are at work no more."""
        return frozenset(name for name in names if name != self.name and self._is_gone(name))

    def _is_gone(self, name: str) -> bool:
        path = self.folder / name
        if not path.exists():
            return True
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        _leave(lock)
        return True


def _leave(lock: FileLock) -> None:
    # The name is never used again: nobody can wait for the lock of a file that is not there any more.
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
