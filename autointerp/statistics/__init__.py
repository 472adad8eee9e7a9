"""What scores are worth: figures, intervals, comparisons and agreement. Needs numpy and scipy only."""

from autointerp.statistics.across import (
    Comparison,
    Mean,
    clustered_mean,
    compare,
    holm,
    latents_needed,
)
from autointerp.statistics.agreement import Agreement, calibration, cohen_kappa, correlated, correlation_matrix
from autointerp.statistics.intervals import mean_of_shares, wilson
from autointerp.statistics.metrics import METRICS, Answers, Metric
from autointerp.statistics.score import answers, interval, minus, scored

__all__ = [
    "METRICS",
    "Agreement",
    "Answers",
    "Comparison",
    "Mean",
    "Metric",
    "answers",
    "calibration",
    "clustered_mean",
    "cohen_kappa",
    "compare",
    "correlated",
    "correlation_matrix",
    "holm",
    "interval",
    "latents_needed",
    "mean_of_shares",
    "minus",
    "scored",
    "wilson",
]
