"""What judges answered against what was so, counted: whether a scorer errs by saying yes too often, or no."""

from collections.abc import Sequence
from dataclasses import dataclass

from autointerp.arms import EXPLANATION
from autointerp.reporting import Subject
from autointerp.statistics.intervals import wilson
from store.confined import quoted
from store.feature_index import FeatureIndex

SQL = """
SELECT run, count_if(truth = 1 AND answer = 1) AS hits, count_if(truth = 1 AND answer = 0) AS misses,
    count_if(truth = 0 AND answer = 1) AS false_alarms, count_if(truth = 0 AND answer = 0) AS rejections,
    count_if(answer IS NULL) AS n_unread, count_if(answer IS NOT NULL AND answer NOT IN (0, 1)) AS n_degrees
FROM examples WHERE run IN ({runs}) AND arm = {arm} AND truth IN (0, 1) GROUP BY run ORDER BY run
"""


@dataclass(frozen=True)
class Rate:
    """A share of answers."""

    value: float | None
    """None where there are no such questions."""
    interval: tuple[float, float] | None
    """Wilson's, 95 %, of answers as if they were independent: too narrow where latents differ."""
    n: int


@dataclass(frozen=True)
class Confusion:
    """Yes and no of one run of scores, over the questions whose answer is one of the two."""

    run: str
    hits: int
    misses: int
    false_alarms: int
    rejections: int
    n_unread: int

    @property
    def sensitivity(self) -> Rate:
        """Yes, of where it fires."""
        return _rate(self.hits, self.hits + self.misses)

    @property
    def specificity(self) -> Rate:
        """No, of where it does not."""
        return _rate(self.rejections, self.rejections + self.false_alarms)


def confusions(index: FeatureIndex, of: Subject) -> list[Confusion]:
    """Of every scorer whose answers are yes and no: those that answer by degrees are left out."""
    rows = index.arrow(SQL.format(runs=_listed([run.id for run in of.scores]), arm=quoted(EXPLANATION))).to_pylist()
    named = ("run", "hits", "misses", "false_alarms", "rejections", "n_unread")
    return [Confusion(**{name: row[name] for name in named}) for row in rows if not row["n_degrees"]]


def _listed(runs: Sequence[str]) -> str:
    return ", ".join(map(quoted, runs)) or "NULL"


def _rate(n_of: int, n: int) -> Rate:
    if not n:
        return Rate(None, None, 0)
    low, high = wilson(n_of, n)
    return Rate(n_of / n, (float(low), float(high)), n)
