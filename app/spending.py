"""What language models were asked and what that took, by the ledger, as far as there is one."""

from collections.abc import Sequence
from pathlib import Path

from autointerp.llm.metered import told
from store.errors import UsageError
from store.ledger import Ledger, Spend, today
from store.replies import FILE, replies_file


def spend(root: Path, runs: Sequence[str]) -> Spend | None:
    """By some runs, over all their starts; None where nobody was asked, or the ledger cannot be read."""
    if not runs or not (root / FILE).exists():
        return None
    try:
        ledger = Ledger(replies_file(root))
        found = Spend(*map(sum, zip(*(ledger.spent(run) for run in runs), strict=True)))
    except UsageError:
        return None
    return found if found.n_calls else None


def spent_by(root: Path, runs: Sequence[str]) -> str:
    """The same in words; empty where nobody was asked."""
    found = spend(root, runs)
    return "" if found is None else told(found)


def spent_today(root: Path) -> Spend | None:
    """By all runs, on this day of UTC; None where nobody was asked."""
    if not (root / FILE).exists():
        return None
    try:
        found = Ledger(replies_file(root)).spent_on(today())
    except UsageError:
        return None
    return found if found.n_calls else None


def outcomes(root: Path, runs: Sequence[str]) -> dict[str, int]:
    """How many calls of some runs ended how, by `store.ledger.Outcome`."""
    if not runs or not (root / FILE).exists():
        return {}
    try:
        return Ledger(replies_file(root)).outcomes(runs)
    except UsageError:
        return {}
