"""Published protocols, each in one file with its controls, on the public API."""

from collections.abc import Callable
from typing import Any

from studies import superposition

STUDIES: dict[str, Callable[..., dict[str, Any]]] = {"superposition": superposition.run}
"""Every study by the name used on the command line; each returns its figures and those of its controls."""
