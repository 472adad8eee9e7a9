"""Another try for what the service refused: after the time that it asks for, else after one that doubles."""

import asyncio
import logging
import random
import time
from typing import final

from autointerp.llm import LLM, Reply, Request
from autointerp.llm.errors import Refused
from autointerp.llm.limited import Sleep
from store.errors import UsageError

log = logging.getLogger(__name__)

FIRST_S = 0.5
"""Longest wait before the second try; it doubles with each."""
MOST_S = 60.0
"""Longest wait that was not asked for."""
TOLD = 4
"""Tries that failed when a person is told."""
TOLD_AGAIN_S = 60.0
"""Least time between two such lines: many calls fail together."""
PATIENCE_S = 600.0
"""Longest wait that is granted to a service that asks for it."""


@final
class Retrying:
    """Calls of `llm`, up to `tries` times each while it raises `Refused`; all else it raises goes through."""

    def __init__(self, llm: LLM, tries: int, *, sleep: Sleep = asyncio.sleep, seed: int | None = None) -> None:
        self.name, self._llm, self.tries = llm.name, llm, tries
        self._sleep = sleep
        self._random = random.Random(seed)
        self._told_at = -TOLD_AGAIN_S

    async def complete(self, request: Request) -> Reply:
        """The model's answer.

        Raises:
            BadRequest: the service will never answer this request.
            UsageError: it did not answer after all tries, or wants to be left alone for too long.
        """
        for n_tried in range(1, self.tries + 1):
            try:
                return await self._llm.complete(request)
            except Refused as refused:
                if n_tried == self.tries:
                    raise UsageError(
                        f"{self.name} did not answer in {self.tries} tries (last: {refused}): the replies that came are"
                        " kept; try again later, and the same command goes on from there"
                    ) from refused
                wait_s = self._wait_s(refused, n_tried)
                # The first few are everyday; who waits longer than seconds is told for what.
                level = logging.WARNING if n_tried == TOLD and self._tell() else logging.INFO
                told = (n_tried, self.tries, self.name, refused, wait_s)
                log.log(level, "try %d of %d at %s: %s; again in %.1f s", *told)
            await self._sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def _tell(self) -> bool:
        """Whether a line is due."""
        now = time.monotonic()
        due = now - self._told_at >= TOLD_AGAIN_S
        if due:
            self._told_at = now
        return due

    def _wait_s(self, refused: Refused, n_tried: int) -> float:
        """Drawn at random, so that those refused together do not come back together."""
        asked_s = refused.retry_after_s or 0.0
        if asked_s > PATIENCE_S:
            raise UsageError(
                f"{self.name} wants to be left alone for {asked_s:,.0f} s ({refused}): the replies that came are kept;"
                " run the same command after that"
            ) from refused
        longest_s = min(FIRST_S * 2.0 ** (n_tried - 1), MOST_S)
        return asked_s + self._random.uniform(0.0, longest_s)
