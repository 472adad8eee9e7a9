"""Replies kept for good: a request that was answered is not sent again, and equal ones under way are sent once."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

import numpy as np

from autointerp.llm import LLM, Reader, Reply, Request, TokenLogprob
from autointerp.llm.excused import REFUSED
from store.replies import Kept, Replies, reply_key


@dataclass
class _Flight:
    """A request under way and how many wait for it."""

    task: "asyncio.Task[Reply]"
    n_waiting: int = field(default=0)


class Cached:
    """Replies from the store, else from `llm`; all have their key."""

    def __init__(self, llm: LLM, replies: Replies) -> None:
        self.name, self._llm, self._replies = llm.name, llm, replies
        self._flights: dict[str, _Flight] = {}

    async def complete(self, request: Request) -> Reply:
        """The stored answer, else the model's.

        Raises:
            UsageError: the stored answer is damaged.
        """
        key = reply_key(self.name, request)
        kept = self._replies.get(key)
        if kept is not None:
            return reply_of(kept, key)
        flight = self._flights.get(key) or self._start(key, request)
        flight.n_waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.n_waiting -= 1
            # One who gives up must not take the reply from the others; the last one ends it.
            if not flight.n_waiting and not flight.task.done():
                flight.task.cancel()
                self._forget(key, flight)

    def _start(self, key: str, request: Request) -> _Flight:
        flight = _Flight(asyncio.ensure_future(self._fetch(request)))
        self._flights[key] = flight
        flight.task.add_done_callback(lambda _: self._forget(key, flight))
        return flight

    def _forget(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _fetch(self, request: Request) -> Reply:
        reply = await self._llm.complete(request)
        if reply.finish == REFUSED:
            # The service, or the person who set it up, may think better of it.
            return reply
        told: dict[str, Any] = asdict(reply)
        del told["key"]
        key = self._replies.put(self.name, request, told)
        # Another process may have been faster: the reply that is kept is the one that everybody reads.
        kept = self._replies.get(key)
        return replace(reply, key=key) if kept is None else reply_of(kept, key)


@final
class CachedReader(Cached):
    """`Cached` of a model that also reads; log-probabilities are not kept."""

    def __init__(self, llm: LLM, replies: Replies, reader: Reader) -> None:
        super().__init__(llm, replies)
        self._reader = reader

    async def logprobs(self, prefix: str, texts: Sequence[str]) -> list[np.ndarray]:
        """See `Reader.logprobs`."""
        return await self._reader.logprobs(prefix, texts)

    async def choices(self, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """See `Reader.choices`."""
        return await self._reader.choices(pieces, candidates)


def reply_of(kept: Kept, key: str) -> Reply:
    """A kept reply as it was given."""
    told = kept.reply
    logprobs = told["logprobs"] and tuple(TokenLogprob(**token) for token in told["logprobs"])
    return Reply(**{**told, "logprobs": logprobs, "key": key})
