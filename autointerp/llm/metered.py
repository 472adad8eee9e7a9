"""Calls that a budget allows: what each may cost is taken before it is sent, and set right when it is answered."""

import asyncio
from collections.abc import Callable
from typing import final

from autointerp.llm import LLM, Reply, Request
from autointerp.llm.budget import Price, actual, most
from autointerp.llm.errors import BadRequest, Lost, Refused
from store.errors import UsageError
from store.ledger import DAY, NANO, Cap, Cost, Crossed, Ledger, Outcome, Spend, Taken
from store.replies import reply_key

OTHERS_S = 0.2
"""Seconds between looks at what other processes have given back."""
UNITS = {
    "calls": lambda n: f"{n:,} calls",
    "tokens": lambda n: f"{n:,} tokens",
    "usd": lambda n: f"${n / NANO:,.4f}",
}
"""How an amount of each unit is written."""
OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (Lost, "lost"),
    (Refused, "refused"),
    (BadRequest, "bad"),
    (UsageError, "bad"),
)
"""What becomes of a call that raises; whatever is not here may have cost something."""


@final
class Metered:
    """Calls of `llm` within `caps`, each written to the ledger, tries that were refused too.

    A call that does not fit while others are under way, in this process or another, waits for them: they take what they
    may cost at most, and give back what they did not need. With `again`, a call that a killed process made for the same
    reply goes on.
    """

    def __init__(
        self,
        llm: LLM,
        ledger: Ledger,
        job: str,
        *,
        caps: tuple[Cap, ...] = (),
        price: Price | None = None,
        again: bool = False,
        on_spend: Callable[[Spend], None] | None = None,
    ) -> None:
        self.name, self._llm, self._ledger, self.job = llm.name, llm, ledger, job
        self._caps, self._price = caps, price or Price()
        self._again, self._on_spend = again, on_spend
        self._n_open = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def complete(self, request: Request) -> Reply:
        """The model's answer.

        Raises:
            UsageError: a cap does not allow it.
        """
        taken = await self._take(request)
        self._n_open += 1
        try:
            reply = await self._llm.complete(request)
        except BaseException as error:
            self._settle(taken, _outcome(error), None)
            raise
        self._settle(taken, "answered", actual(reply, self._price))
        return reply

    async def _take(self, request: Request) -> Taken:
        cost = most(request, self._price)
        key = reply_key(self.name, request)
        while True:
            found = self._ledger.take(self.job, self.name, request.prompt, cost, self._caps, key, again=self._again)
            if isinstance(found, Taken):
                return found
            if self._n_open:
                turn = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                await turn
            elif found.spend.n_open and self._ledger.reap():
                continue
            elif self._ledger.waits_for_others(found.cap, self.job):
                await asyncio.sleep(OTHERS_S)
            else:
                raise UsageError(_crossed(found, cost, self.job))

    def _settle(self, taken: Taken, outcome: Outcome, cost: Cost | None) -> None:
        self._n_open -= 1
        try:
            self._ledger.settle(taken, outcome, cost)
        finally:
            waiting, self._waiting = self._waiting, []
            for turn in waiting:
                if not turn.done():
                    turn.set_result(None)
        if self._on_spend:
            self._on_spend(self._ledger.spent(self.job))


def told(spend: Spend) -> str:
    """An amount for people: `12 calls, 3,400 tokens, $0.0012`."""
    amounts = {"calls": spend.n_calls, "tokens": spend.n_tokens, "usd": spend.nano_usd}
    return ", ".join(UNITS[unit](amount) for unit, amount in amounts.items() if amount or unit != "usd")


def _outcome(error: BaseException) -> Outcome:
    for kind, outcome in OUTCOMES:
        if isinstance(error, kind):
            return outcome
    return "lost"


def _crossed(crossed: Crossed, cost: Cost, job: str) -> str:
    """What was spent, which cap, and how to go on."""
    cap, spend = crossed
    spent = {"calls": spend.n_calls, "tokens": spend.n_tokens, "usd": spend.nano_usd}[cap.unit]
    more = {"calls": 1, "tokens": cost.n_tokens, "usd": cost.nano_usd or 0}[cap.unit]
    write = UNITS[cap.unit]
    held = f" ({spend.n_open} of its calls have no reply yet)" if spend.n_open else ""
    whose, way_out = ("today (UTC)", "go on tomorrow") if cap.scope == DAY else (f"by job {job}", "give another job")
    return (
        f"{write(spent)} spent {whose}{held}, the next call may take {write(more)} and max_{cap.unit}_per_{cap.scope}"
        f" allows {write(cap.most)}: raise it, or {way_out}; the replies that came are kept and are not asked for again"
    )
