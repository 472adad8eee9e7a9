"""One request to the worker, as the one who asked sees it."""

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar, final

from store.errors import UsageError

T = TypeVar("T")


LAST = ("result", "refused", "dropped")
"""Kinds of messages after which none comes."""


class WorkerDied(UsageError):
    """The worker ended before the request was answered."""


class Stopped(UsageError):
    """The request was cancelled."""


@final
class Job(Generic[T]):
    """A request that waits, runs, and ends with a result, an error, or because it was cancelled."""

    def __init__(self, number: int, decode: Callable[[dict[str, Any]], T], cancel: Callable[[int], None]) -> None:
        """Await the answer to request `number`.

        Args:
            number: its id, used once.
            decode: makes the result of plain data.
            cancel: tells the worker to drop it.
        """
        self.number, self._decode, self._cancel = number, decode, cancel
        self.started = False
        """Whether its turn has come."""
        self.texts = {"clean": "", "steered": ""}
        """What is written so far."""
        self.n_tokens = {"clean": 0, "steered": 0}
        self.progress = (0, 0)
        """Of what is measured in steps: how many are done, and of how many."""
        self.let_go = False
        """Whether the worker, told that it was cancelled, has dropped it, or is no more."""
        self.note = ""
        """What happened to the worker since the request before, or because of this one; empty if nothing did."""
        self._heard = time.monotonic()
        self._result: dict[str, Any] | None = None
        self._error: UsageError | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """Whether it has ended, however."""
        return self._ended.is_set()

    @property
    def stopping(self) -> bool:
        """Whether it was cancelled, and the worker has not said yet that it was dropped."""
        return isinstance(self._error, Stopped) and not self.let_go

    @property
    def silent_seconds(self) -> float:
        """How long the worker has said nothing of it, which it does token by token, or step by step."""
        return time.monotonic() - self._heard

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result.

        Raises:
            UsageError: what the worker refused, `Stopped` if it was cancelled, `WorkerDied` if the worker has ended.
            TimeoutError: it has not ended within `timeout` seconds.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"request {self.number} has not ended after {timeout} seconds")
        if self._error is not None:
            # A copy: each that is raised collects its own traceback.
            raise type(self._error)(str(self._error))
        assert self._result is not None
        return self._decode(self._result)

    def cancel(self) -> None:
        """End it at once; the worker drops it at its next token, or is killed if it does not. Nothing is done to one
        that has ended."""
        if self.end(error=Stopped(f"stopped after {self._so_far}: ask again for the whole")):
            self._cancel(self.number)

    @property
    def _so_far(self) -> str:
        done, of = self.progress
        tokens = " and ".join(f"{n} {side}" for side, n in self.n_tokens.items())
        return f"{done} of {of} cells" if of else f"{tokens} tokens"

    def take(self, message: dict[str, Any]) -> None:
        """What the worker says of it. After its end all that counts is that it was let go."""
        self._heard = time.monotonic()
        if message["kind"] == "started":
            self.started = True
        if self.done:
            self.let_go |= message["kind"] in LAST
            return
        match message["kind"]:
            case "progress":
                self.progress = (message["done"], message["of"])
            case "token":
                self.texts[message["side"]] = message["text"]
                self.n_tokens[message["side"]] += 1
            case "result":
                self.end(result=message["result"])
            case "refused":
                self.end(error=UsageError(message["line"]))

    def end(self, *, result: dict[str, Any] | None = None, error: UsageError | None = None) -> bool:
        """End it, if it has not ended; whether it was this call that did."""
        with self._lock:
            if self.done:
                return False
            self._result, self._error = result, error
            self._ended.set()
            return True
