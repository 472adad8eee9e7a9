"""As many calls at once as the service bears: one more for each round that passes, half as many after a refusal.

Additive increase, multiplicative decrease: Chiu and Jain 1989, "Analysis of the increase and decrease algorithms for
congestion avoidance in computer networks".
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import final

from autointerp.llm import LLM, Reply, Request
from autointerp.llm.errors import Refused

Sleep = Callable[[float], Awaitable[None]]


@final
class Limited:
    """Calls of `llm`, at most `most` under way; the next is sent as soon as one ends.

    After a refusal with a time to wait, nothing is sent until it is over. Refusals of calls that were sent before the
    last halving tell of the old number and do not halve again.
    """

    def __init__(
        self, llm: LLM, most: int, *, clock: Callable[[], float] = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        self.name, self._llm, self.most = llm.name, llm, most
        self.allowed = float(most)
        """Calls at once, for now."""
        self.n_busy = 0
        self._clock, self._sleep = clock, sleep
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._not_before = float("-inf")
        self._round = 0

    async def complete(self, request: Request) -> Reply:
        """The model's answer.

        Raises:
            Refused: the service did not answer.
        """
        await self._enter()
        try:
            while (wait_s := self._not_before - self._clock()) > 0:
                await self._sleep(wait_s)
            round_sent = self._round
            try:
                reply = await self._llm.complete(request)
            except Refused as refused:
                self._slow_down(refused, round_sent)
                raise
            self.allowed = min(self.allowed + 1 / self.allowed, self.most)
            return reply
        finally:
            self._leave()

    def _slow_down(self, refused: Refused, round_sent: int) -> None:
        if refused.retry_after_s is not None:
            self._not_before = max(self._not_before, self._clock() + refused.retry_after_s)
        if round_sent == self._round:
            self._round += 1
            self.allowed = max(self.allowed / 2, 1.0)

    async def _enter(self) -> None:
        if self.n_busy < int(self.allowed) and not self._waiting:
            self.n_busy += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _leave(self) -> None:
        self.n_busy -= 1
        while self._waiting and self.n_busy < int(self.allowed):
            turn = self._waiting.popleft()
            if not turn.done():
                self.n_busy += 1
                turn.set_result(None)
