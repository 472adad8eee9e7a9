"""One request to the worker, as the one who asked sees it."""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, final

from store.errors import UsageError

T = TypeVar("T")


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
        self.note = ""
        """What happened to the worker since the request before; empty if nothing did."""
        self._result: dict[str, Any] | None = None
        self._error: UsageError | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """Whether it has ended, however."""
        return self._ended.is_set()

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
        """End it at once; the worker drops it at its next token. Nothing is done to one that has ended."""
        so_far = " and ".join(f"{n} {side}" for side, n in self.n_tokens.items())
        if self.end(error=Stopped(f"stopped after {so_far} tokens: ask again for the whole")):
            self._cancel(self.number)

    def take(self, message: dict[str, Any]) -> None:
        """What the worker says of it. What comes after its end is of no account."""
        if self.done:
            return
        match message["kind"]:
            case "started":
                self.started = True
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
