"""What steering does and what it costs: strengths, tiers and seeds against controls."""

from autointerp.sweep.config import SweepConfig
from autointerp.sweep.job import sweep

__all__ = ["SweepConfig", "sweep"]
