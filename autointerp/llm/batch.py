"""Batch services behind `complete`: requests are gathered and sent together, and no crash sends one of them twice.

A batch is written down before it is sent and again, with its id, before it is waited for. Requests are known in it by a
hash of what they ask: whoever asks the same again, in whatever order or company, waits for the batch that has it.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final, runtime_checkable

from autointerp.llm import Reply, Request
from autointerp.llm.batch_records import Record, Records
from autointerp.llm.errors import BadRequest, Lost, Refused
from store.errors import UsageError

log = logging.getLogger(__name__)

SENDER_POLL_S = 0.2
"""Seconds between looks at a batch that another process is about to send."""
KEPT_RESULTS = 4
"""Batches whose results stay in memory; those of others are fetched again when they are asked for."""

MOST_UNREAD = 20
"""Looks at a batch that has ended without its results being read, after which a person is asked what to do."""


class Unread(Refused):
    """A batch has ended, and what came of it could not be fetched or is no JSON."""


class NotTaken(UsageError):
    """A batch that the service turned down as a whole: that says nothing of any one of its requests."""

    @classmethod
    def saying(cls, said: object) -> "NotTaken":
        """With what the service said, and what to do."""
        way_out = "mend what it says, wait if it is at its limit, or use a backend without batches"
        return cls(f"a batch was not taken ({said}): {way_out}; the same command sends it again")


@runtime_checkable
class BatchService(Protocol):
    """A service that takes many requests at once and answers within a day."""

    name: str
    """Of the model, the same as that of its backend without batches: their replies are the same."""

    async def submit(self, label: str, requests: Mapping[str, Request]) -> str:
        """Sends `requests`, by custom id, as one batch called `label`; its id."""
        ...

    async def find(self, label: str, custom_ids: frozenset[str], since: datetime, poll_s: float) -> str | None:
        """The id of the batch that was sent after `since` and whose id never arrived; None if there is none."""
        ...

    async def results(self, batch_id: str) -> dict[str, Any] | None:
        """What came of each request, by custom id; None while the batch is under way.

        Raises:
            NotTaken: the service did not take the batch: none of its requests was or will be answered.
            Unread: it has ended, and its results cannot be read.
            Refused: it could not be looked at.
            UsageError: the service knows no such batch, or its results are gone.
        """
        ...

    def reply(self, result: Any | None, request: Request) -> Reply:
        """The reply in one of `results`; None stands for a request that is not among them.

        Raises:
            Refused: it was not answered: busy, expired, cancelled, missing.
            BadRequest: it will never be.
        """
        ...


class _Asked(NamedTuple):
    request: Request
    reply: asyncio.Future[Reply]


def custom_id(name: str, request: Request) -> str:
    """The name of `request` within batches: 48 hex digits of a hash of all it asks of the model `name`."""
    asked = json.dumps([name, asdict(request)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:48]


def unknown_batch(batch_id: str, url: str) -> UsageError:
    """The error for a batch that was sent and cannot be found; sending it again unasked might pay for it twice."""
    way_out = "use the key of the account that sent it, or delete its file beside the replies to send it again"
    return UsageError(f"{url} has no batch {batch_id}, or not any more: {way_out}")


def told_id(found: Mapping[str, Any], url: str) -> str:
    """The id in the answer to what was sent.

    Raises:
        Lost: there is none; it may have arrived all the same.
    """
    name = found.get("id")
    if not isinstance(name, str) or not name:
        raise Lost(f"{url} answered a batch without its id: {str(found)[:200]}")
    return name


@final
@dataclass
class Batched:
    """`complete` by way of batches: each waits until its batch has ended, which may take hours.

    A batch is sent once nothing has been asked for `gather_s`, or `max_requests` are waiting: ask for all at once.
    """

    service: BatchService
    folder: Path
    """Where batches are written down; beside the store's replies, so that both go or stay together."""
    gather_s: float = 5.0
    poll_s: float = 30.0
    """Seconds between looks at a batch under way."""
    settle_s: float = 60.0
    """Longest that the service may take to list what it was sent; a batch it has not listed by then is sent again."""
    max_requests: int = 10_000
    name: str = field(init=False)
    _asked: dict[str, _Asked] = field(default_factory=dict, init=False, repr=False)
    _pending: list[str] = field(default_factory=list, init=False, repr=False)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False, repr=False)
    _n_unread: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _results: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.name = self.service.name
        self._records = Records(self.folder, self.name)

    async def complete(self, request: Request) -> Reply:
        """The model's answer, from the batch that has the request already or from a new one.

        Raises:
            Refused: the batch ended without it; the next try goes into another.
            BadRequest: the service will not take the request.
            UsageError: the key or the model is not right; `NotTaken` where it will not take the batch.
        """
        name, loop = custom_id(self.name, request), asyncio.get_running_loop()
        asked = self._asked.get(name)
        if asked is None or asked.reply.done() or asked.reply.get_loop() is not loop:
            asked = self._asked[name] = _Asked(request, loop.create_future())
            self._gather([name])
        # Whoever gives up waiting does not take the answer from others who asked the same.
        return await asyncio.shield(asked.reply)

    def _gather(self, names: Iterable[str]) -> None:
        self._pending.extend(names)
        self._start("gather", self._send_gathered())

    def _start(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` unless what bears the same `key` is running; if it breaks, so does what waits."""
        task = self._tasks.get(key)
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            work.close()
            return
        self._tasks[key] = task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        for key in [key for key, other in self._tasks.items() if other is task]:
            del self._tasks[key]
            # A task that is cancelled before its first step runs none of its own clauses.
            self._records.release(key)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a batch broke off: %r", error)
            self._fail(list(self._asked), error)

    def _fail(self, names: Iterable[str], error: BaseException) -> None:
        for name in names:
            asked = self._asked.pop(name, None)
            if asked is not None and not asked.reply.done():
                asked.reply.set_exception(error)

    def _fail_all(self, record: Record, error: BaseException) -> None:
        """What a whole batch meets is no fault of its requests: none of them is a bad one for it."""
        self._fail(record.custom_ids, NotTaken.saying(error) if isinstance(error, BadRequest) else error)

    async def _send_gathered(self) -> None:
        """Once no more requests come: each to the batch that has it, the others into new ones."""
        n_before, loop = -1, asyncio.get_running_loop()
        while n_before != len(self._pending) < self.max_requests:
            n_before = len(self._pending)
            await asyncio.sleep(self.gather_s)
        gathered, self._pending = dict.fromkeys(self._pending), []
        names = [name for name in gathered if name in self._asked and self._asked[name].reply.get_loop() is loop]
        held, new = self._records.claim(names, self.max_requests)
        for record in held:
            self._start(record.label, self._watch(record))
        for record in new:
            self._start(record.label, self._send(record))

    async def _send(self, record: Record) -> None:
        """Sends a batch of our own; others see that it is being sent until what came of it is written down."""
        requests = {name: self._asked[name].request for name in record.custom_ids}
        try:
            batch_id = await self.service.submit(record.label, requests)
        except Refused as error:
            # It may have arrived all the same: the record stays, and the next try looks for it.
            self._fail_all(record, error)
            return
        except (BadRequest, UsageError) as error:
            self._records.forget(record)
            self._fail_all(record, error)
            return
        else:
            record = self._records.sent(record, batch_id)
        finally:
            self._records.release(record.label)
        log.info("sent %d requests as batch %s", len(requests), batch_id)
        await self._wait(record, batch_id)

    async def _watch(self, record: Record) -> None:
        """Waits for a batch that an earlier try, or another process, has sent or may have sent."""
        found = await self._found(record) if record.batch_id is None else record
        if found is None:
            self._gather(name for name in record.custom_ids if name in self._asked)
        elif found.batch_id is not None:
            log.info("waiting for batch %s, sent at %s", found.batch_id, found.submitted)
            await self._wait(found, found.batch_id)

    async def _found(self, record: Record) -> Record | None:
        """`record` with its id once it is known; None if the batch never was, without an id if it could not be told."""
        while not self._records.take(record):
            # Its sender is alive: what comes of it will be written down.
            await asyncio.sleep(min(self.poll_s, SENDER_POLL_S))
        try:
            now = self._records.reread(record)
            if now is None or now.batch_id is not None:
                return now
            batch_id = await self._search(record)
            if batch_id is None:
                self._records.forget(record)
                return None
            return self._records.sent(record, batch_id)
        except (Refused, BadRequest, UsageError) as error:
            self._fail_all(record, error)
            return record
        finally:
            self._records.release(record.label)

    async def _search(self, record: Record) -> str | None:
        """The id under which the service has a batch whose sender is gone; None if it has none."""
        names, since = frozenset(record.custom_ids), datetime.fromisoformat(record.submitted)
        until = time.monotonic() + self.settle_s
        while True:
            batch_id = await self.service.find(record.label, names, since, self.poll_s)
            # What was on its way when its sender was killed may be listed late.
            if batch_id is not None or time.monotonic() >= until:
                return batch_id
            await asyncio.sleep(min(self.poll_s, self.settle_s))

    async def _wait(self, record: Record, batch_id: str) -> None:
        try:
            while (results := await self._look(record.label, batch_id)) is None:
                await asyncio.sleep(self.poll_s)
        except NotTaken as error:
            self._records.forget(record)
            self._fail_all(record, error)
        except (BadRequest, UsageError) as error:
            self._fail_all(record, error)
        else:
            self._deliver(record, results)

    async def _look(self, label: str, batch_id: str) -> dict[str, Any] | None:
        if label not in self._results:
            try:
                found = await self.service.results(batch_id)
            except Refused as error:
                log.warning("could not look at batch %s: %s", batch_id, error)
                self._unread(label, batch_id, error)
                return None
            if found is None:
                return None
            self._results[label] = found
            while len(self._results) > KEPT_RESULTS:
                self._results.popitem(last=False)
        return self._results[label]

    def _unread(self, label: str, batch_id: str, error: Refused) -> None:
        """Counts the looks at a batch that has ended: one under way may be out of reach for hours."""
        self._n_unread[label] += isinstance(error, Unread)
        if self._n_unread[label] >= MOST_UNREAD:
            del self._n_unread[label]
            raise UsageError(
                f"batch {batch_id} has ended and its results could not be read in {MOST_UNREAD} looks (last: {error}): "
                f"run the same command later, or delete {self._records.path(label)} to send it, and pay for it, again"
            ) from error

    def _deliver(self, record: Record, results: dict[str, Any]) -> None:
        ends: dict[str, Reply | Exception] = {}
        for name in record.custom_ids:
            if name in self._asked and name not in record.again:
                ends[name] = self._end(results.get(name), self._asked[name].request)
        again = tuple(name for name, end in ends.items() if isinstance(end, Refused))
        if again:
            self._records.unanswered(record, again)
        for name, end in ends.items():
            if isinstance(end, Exception):
                self._fail([name], end)
            else:
                reply = self._asked.pop(name).reply
                if not reply.done():
                    reply.set_result(end)

    def _end(self, result: Any | None, request: Request) -> Reply | Exception:
        try:
            return self.service.reply(result, request)
        except (Refused, BadRequest, UsageError) as error:
            return error
