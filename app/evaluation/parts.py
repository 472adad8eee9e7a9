"""The table of parts: what each measures, in which settings, and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from activations.progress import Progress
from app.evaluation.subject import Subject
from store.figures import Measured


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of an evaluation."""

    config: type[Any]
    """Its settings; has a `quick` preset."""
    measure: Callable[[Any, Subject, Progress], Measured]
    summary: str
    """What it measures, in a line."""


PARTS: dict[str, Part] = {}
"""Every part by the name that `--only` takes, cheapest first."""
