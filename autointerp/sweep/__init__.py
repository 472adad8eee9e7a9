"""What steering does and what it costs: strengths, tiers and seeds against controls."""

from autointerp.sweep.config import SweepConfig
from autointerp.sweep.job import Measured, steps, sweep

__all__ = ["Measured", "SweepConfig", "steps", "sweep"]
