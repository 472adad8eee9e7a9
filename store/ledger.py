"""The ledger of calls to language models: what may be spent is taken before a call is sent and set right after it.

Totals by job and by day stand in the same file and change in the same transaction, so that a cap holds for all
processes together. What was taken for a call that was killed or lost stays taken: the service may have charged for it.
A call belongs to the ledger that took it, so that calls under way are told from those of killed processes.
"""

import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from store.living import Living
from store.replies import now
from store.sqlite_file import SqliteFile

NANO = 1_000_000_000
"""Money is counted in whole billionths of a dollar: sums of these are exact."""

Outcome = Literal["answered", "refused", "lost", "bad"]
"""What became of a call: `refused` and `bad` cost nothing, `lost` (no whole answer, or cut off) may have.
A call that is under way is `sent`, and so is one whose process was killed until somebody looks: it is `lost` then."""

REAPED_EVERY_S = 5.0
"""Seconds between looks for the calls of killed processes."""
DAY, JOB = "day", "job"
OWNERS = "replies.owners"
"""Folder, beside the file, of those who have calls under way."""


class Spend(NamedTuple):
    """What was spent, with what is taken for calls under way."""

    n_calls: int = 0
    n_tokens: int = 0
    """In and out."""
    nano_usd: int = 0
    n_open: int = 0
    """Calls under way, and those of killed processes."""

    @property
    def usd(self) -> float:
        """Dollars, as far as prices are known."""
        return self.nano_usd / NANO


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Tokens and money of one call; before it is sent, the most it may take."""

    n_tokens_in: int
    n_tokens_out: int
    n_tokens_cached: int = 0
    """Of those in."""
    nano_usd: int | None = None
    """None where the price is not known."""

    @property
    def n_tokens(self) -> int:
        """In and out."""
        return self.n_tokens_in + self.n_tokens_out

    @property
    def usd(self) -> float | None:
        """Dollars."""
        return None if self.nano_usd is None else self.nano_usd / NANO


@dataclass(frozen=True, kw_only=True)
class Cap:
    """The most that a job or a day may take."""

    scope: Literal["job", "day"]
    unit: Literal["calls", "tokens", "usd"]
    most: int
    """Of calls, tokens or billionths of a dollar."""

    def exceeded(self, spend: Spend, cost: Cost) -> bool:
        """Whether one more call would cross it."""
        taken = {
            "calls": spend.n_calls + 1,
            "tokens": spend.n_tokens + cost.n_tokens,
            "usd": spend.nano_usd + (cost.nano_usd or 0),
        }
        return taken[self.unit] > self.most


class Crossed(NamedTuple):
    """A cap that a call would cross, and what is spent."""

    cap: Cap
    spend: Spend


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A call that may be sent."""

    id: int
    scopes: tuple[tuple[str, str], ...]
    cost: Cost
    began: float
    """Monotonic seconds."""


class Ledger:
    """Calls and totals of one file."""

    def __init__(self, file: SqliteFile, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock = file, clock
        self._reaped_at = -math.inf
        self._living = Living(file.path.with_name(OWNERS))

    def take(
        self,
        job: str,
        model: str,
        prompt: str,
        cost: Cost,
        caps: tuple[Cap, ...] = (),
        key: str = "",
        *,
        again: bool = False,
    ) -> Taken | Crossed:
        """Take `cost` from what the job and the day have left, or say which cap does not allow it.

        Args:
            job: whose account it is put on.
            model: that is asked.
            prompt: its id.
            cost: the most that it may take.
            caps: that must hold.
            key: of the reply it is to bring.
            again: whether a call for the same reply, by this job, that was killed or lost goes on where it was: what
                was taken for it is not taken twice. So it is with services that keep what they were sent.
        """
        owner = self._living.join()
        # Each look goes through all that is under way: one for every call would take a time that grows with its square.
        if again and key and self._clock() - self._reaped_at >= REAPED_EVERY_S:
            self.reap()
        at = now()
        scopes = ((JOB, job), (DAY, at[:10]))
        with self._file.writing() as connection:
            if again and key and (kept := connection.execute(LOST, (job, model, key)).fetchone()):
                return _taken_over(connection, kept, job, owner, self._clock())
            spends = {scope: _spend(connection.execute(SPEND, (scope, name)).fetchall()) for scope, name in scopes}
            crossed = next((cap for cap in caps if cap.exceeded(spends[cap.scope], cost)), None)
            if crossed is not None:
                return Crossed(crossed, spends[crossed.scope])
            tokens = (cost.n_tokens_in, cost.n_tokens_out, cost.n_tokens_cached, cost.usd)
            number = connection.execute(SENT, (at, job, model, prompt, *tokens, key, owner)).lastrowid
            for scope, name in scopes:
                connection.execute(OPEN, (scope, name))
                connection.execute(ADD, (1, cost.n_tokens, cost.nano_usd or 0, 1, scope, name))
        assert number is not None
        return Taken(id=number, scopes=scopes, cost=cost, began=self._clock())

    def reap(self) -> bool:
        """Write down as lost the calls of processes that are gone, if there are any; what was taken stays taken."""
        self._reaped_at = self._clock()
        owners = [owner for (owner,) in self._file.rows(OWNERS_AT_WORK)]
        gone = self._living.gone(owners)
        if not gone:
            return False
        with self._file.writing() as connection:
            for owner in gone:
                for number, job, at in connection.execute(SENT_BY, (owner,)).fetchall():
                    connection.execute("UPDATE calls SET outcome = 'lost' WHERE id = ?", (number,))
                    for scope, name in ((JOB, job), (DAY, at[:10])):
                        connection.execute(ADD, (0, 0, 0, -1, scope, name))
        return True

    def waits_for_others(self, cap: Cap, job: str) -> bool:
        """Whether a call of another process is under way that may give back some of what `cap` counts."""
        query = AT_WORK_IN_JOB if cap.scope == JOB else AT_WORK_ON_DAY
        name = job if cap.scope == JOB else today()
        return bool(self._file.rows(query, (self._living.name, name)))

    def settle(self, taken: Taken, outcome: Outcome, cost: Cost | None) -> None:
        """Write down what became of a call; `cost` None where it is not known, which leaves it as it was taken for a
        lost call, and gives it back for the others."""
        known = taken.cost if cost is None and outcome == "lost" else cost
        spent = known or Cost(n_tokens_in=0, n_tokens_out=0)
        change = (spent.n_tokens - taken.cost.n_tokens, (spent.nano_usd or 0) - (taken.cost.nano_usd or 0))
        told = (known.n_tokens_in, known.n_tokens_out, known.n_tokens_cached, known.usd) if known else (None,) * 4
        with self._file.writing() as connection:
            connection.execute(SETTLED, (outcome, *told, self._clock() - taken.began, taken.id))
            for scope, name in taken.scopes:
                connection.execute(ADD, (0, *change, -1, scope, name))

    def seconds(self, model: str) -> float | None:
        """What a call of `model` took on average, of the newest that were answered; None where there is none."""
        ((seconds,),) = self._file.rows(SECONDS, (model,))
        return seconds

    def outcomes(self, jobs: Sequence[str]) -> dict[str, int]:
        """How many calls of some jobs ended how; `sent` are those under way, and those of killed processes."""
        marks = ", ".join("?" * len(jobs))
        query = f"SELECT outcome, count(*) FROM calls WHERE job IN ({marks}) GROUP BY outcome ORDER BY outcome"
        return dict(self._file.rows(query, tuple(jobs)))

    def spent(self, job: str) -> Spend:
        """By a job, ever."""
        return _spend(self._file.rows(SPEND, (JOB, job)))

    def spent_on(self, day: str) -> Spend:
        """By all jobs on a day of UTC, such as `2026-01-31`."""
        return _spend(self._file.rows(SPEND, (DAY, day)))


SPEND = "SELECT n_calls, n_tokens, nano_usd, n_open FROM totals WHERE scope = ? AND name = ?"
SENT = (
    "INSERT INTO calls (sent_at, job, model, prompt, outcome, n_tokens_in, n_tokens_out, n_tokens_cached, usd, key,"
    " owner) VALUES (?, ?, ?, ?, 'sent', ?, ?, ?, ?, ?, ?)"
)
OWNERS_AT_WORK = "SELECT DISTINCT owner FROM calls WHERE outcome = 'sent'"
SENT_BY = "SELECT id, job, sent_at FROM calls WHERE outcome = 'sent' AND owner = ?"
AT_WORK_IN_JOB = "SELECT 1 FROM calls WHERE outcome = 'sent' AND owner != ? AND job = ? LIMIT 1"
AT_WORK_ON_DAY = "SELECT 1 FROM calls WHERE outcome = 'sent' AND owner != ? AND substr(sent_at, 1, 10) = ? LIMIT 1"
LOST = (
    "SELECT id, sent_at, n_tokens_in, n_tokens_out, n_tokens_cached, usd FROM calls"
    " WHERE outcome = 'lost' AND job = ? AND model = ? AND key = ? LIMIT 1"
)
OPEN = "INSERT OR IGNORE INTO totals (scope, name) VALUES (?, ?)"
ADD = (
    "UPDATE totals SET n_calls = n_calls + ?, n_tokens = n_tokens + ?, nano_usd = nano_usd + ?, n_open = n_open + ?"
    " WHERE scope = ? AND name = ?"
)
SECONDS = (
    "SELECT avg(seconds) FROM (SELECT seconds FROM calls WHERE model = ? AND outcome = 'answered'"
    " ORDER BY id DESC LIMIT 500)"
)
SETTLED = (
    "UPDATE calls SET outcome = ?, n_tokens_in = ?, n_tokens_out = ?, n_tokens_cached = ?, usd = ?, seconds = ?"
    " WHERE id = ?"
)


def today() -> str:
    """The day of UTC that calls are counted on now."""
    return now()[:10]


def _taken_over(connection: sqlite3.Connection, lost: tuple, job: str, owner: str, began: float) -> Taken:
    number, at, n_in, n_out, n_cached, usd = lost
    connection.execute("UPDATE calls SET outcome = 'sent', owner = ? WHERE id = ?", (owner, number))
    scopes = ((JOB, job), (DAY, at[:10]))
    for scope, name in scopes:
        connection.execute(ADD, (0, 0, 0, 1, scope, name))
    nano_usd = None if usd is None else round(usd * NANO)
    cost = Cost(n_tokens_in=n_in, n_tokens_out=n_out, n_tokens_cached=n_cached, nano_usd=nano_usd)
    return Taken(id=number, scopes=scopes, cost=cost, began=began)


def _spend(rows: list[tuple]) -> Spend:
    return Spend(*rows[0]) if rows else Spend()
