"""What scores are worth: figures, intervals, comparisons and agreement. Needs numpy and scipy only."""

from autointerp.statistics.intervals import mean_of_shares, wilson
from autointerp.statistics.metrics import METRICS, Answers, Metric
from autointerp.statistics.score import answers, interval, scored

__all__ = ["METRICS", "Answers", "Metric", "answers", "interval", "mean_of_shares", "scored", "wilson"]
