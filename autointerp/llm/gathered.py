"""Calls that come close together run as one, on a worker thread: the event loop stays free for the callers."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, final


@final
class Gathered:
    """Hands what is asked within `wait_s` of the first call, or while the worker is busy, to `run` in groups.

    `group` puts the numbers of what is pending into groups; `run` answers one group, in its order.
    """

    def __init__(
        self,
        group: Callable[[Sequence[Any]], list[list[int]]],
        run: Callable[[Sequence[Any]], Sequence[Any]],
        wait_s: float,
    ) -> None:
        self._group, self._run, self._wait_s = group, run, wait_s
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="local-llm")
        self._pending: list[tuple[Any, Future[Any]]] = []
        self._lock = Lock()

    async def alone(self, work: Callable[[], Any]) -> Any:
        """What `work` gives, on the same worker."""
        return await asyncio.wrap_future(self._worker.submit(work))

    async def __call__(self, item: Any) -> Any:
        """The answer to `item`.

        Raises:
            Exception: whatever `run` raised for its group.
        """
        future: Future[Any] = Future()
        with self._lock:
            self._pending.append((item, future))
        self._worker.submit(self._drain)
        return await asyncio.wrap_future(future)

    def _drain(self) -> None:
        if not self._pending:
            return  # an earlier drain has taken this call's item along
        time.sleep(self._wait_s)
        with self._lock:
            taken, self._pending = self._pending, []
        taken = [(item, future) for item, future in taken if future.set_running_or_notify_cancel()]
        for numbers in self._group([item for item, _ in taken]):
            self._answer([taken[number] for number in numbers])

    def _answer(self, asked: Sequence[tuple[Any, "Future[Any]"]]) -> None:
        try:
            answers = self._run([item for item, _ in asked])
        except Exception as error:  # raised again at each of the callers, who wait on another thread
            for _, future in asked:
                future.set_exception(error)
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            future.set_result(answer)
