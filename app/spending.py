"""What language models were asked and what that took, by the ledger, as far as there is one."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from autointerp.llm.metered import told
from store.errors import UsageError
from store.ledger import Ledger, Spend, today
from store.replies import FILE, replies_file


def spend(root: Path, runs: Sequence[str]) -> Spend | None:
    """By some runs, over all their starts; None where nobody was asked, or the ledger cannot be read."""
    try:
        ledger = _ledger(root)
        if ledger is None or not runs:
            return None
        found = Spend(*map(sum, zip(*(ledger.spent(run) for run in runs), strict=True)))
    except UsageError:
        return None
    return found if found.n_calls else None


def spent_by(root: Path, runs: Sequence[str]) -> str:
    """The same in words; empty where nobody was asked."""
    found = spend(root, runs)
    return "" if found is None else told(found)


def spent_today(root: Path) -> Spend | None:
    """By all runs, on this day of UTC; None as in `spend`."""
    try:
        ledger = _ledger(root)
        found = None if ledger is None else ledger.spent_on(today())
    except UsageError:
        return None
    return found if found is not None and found.n_calls else None


def outcomes(root: Path, runs: Sequence[str]) -> dict[str, int]:
    """How many calls of some runs ended how, by `store.ledger.Outcome`."""
    try:
        ledger = _ledger(root)
        return ledger.outcomes(runs) if ledger is not None and runs else {}
    except UsageError:
        return {}


def _ledger(root: Path) -> Ledger | None:
    """None where nobody was ever asked: no file is made by looking."""
    try:
        return _opened(root, (root / FILE).stat().st_ino)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=8)
def _opened(root: Path, inode: int) -> Ledger:
    """Stays open: pages look every two seconds, and each opening takes the lock that jobs write under."""
    del inode  # another file than the one that was there
    return Ledger(replies_file(root))
