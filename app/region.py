"""A region of a map that somebody drew: a polygon short enough for a URL, and the points that lie in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from store.errors import UsageError

MOST_CORNERS = 120
"""Of a lasso with more, every so-manieth is kept: a URL may have some thousand characters."""


@dataclass(frozen=True)
class Region:
    """A polygon on one map; its last corner is joined to its first."""

    on: str
    """Name of the map."""
    corners: tuple[tuple[float, float], ...]

    def __str__(self) -> str:
        """As it stands in a URL: the map, and x and y of each corner."""
        return ":".join((self.on, *(f"{value:.4g}" for corner in self.corners for value in corner)))

    def has(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`[n]` bool: which points lie inside, by the number of sides that a ray to the right crosses."""
        corners = np.array(self.corners)
        inside = np.zeros(len(x), bool)
        near = np.flatnonzero((corners.min(0)[0] <= x) & (x <= corners.max(0)[0]))
        px, py = x[near], y[near]
        for (x1, y1), (x2, y2) in pairwise([*self.corners, self.corners[0]]):
            if y1 != y2:
                crosses = (y1 > py) != (y2 > py)
                inside[near] ^= crosses & (px < (x2 - x1) * (py - y1) / (y2 - y1) + x1)
        return inside


def read_region(text: str) -> Region:
    """The region that a URL names.

    Raises:
        UsageError: it is none.
    """
    name, *numbers = text.split(":")
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = []
    if len(values) < 6 or len(values) % 2 or not np.isfinite(values).all():
        raise UsageError(f"'{text[:80]}' is no region: draw one on the map again")
    return Region(name, tuple(zip(values[::2], values[1::2], strict=True)))


def drawn_region(on: str, selection: Mapping[str, Any]) -> Region | None:
    """The region that was drawn last on a Plotly figure, by lasso or as a box; None if none was.

    Args:
        on: name of the map.
        selection: as Streamlit tells it: `lasso` and `box`, each a list with `x` and `y`.
    """
    lassos: Sequence[Any] = selection.get("lasso") or ()
    boxes: Sequence[Any] = selection.get("box") or ()
    if lassos:
        corners = list(zip(lassos[-1]["x"], lassos[-1]["y"], strict=True))
        step = -(-len(corners) // MOST_CORNERS)
        return read_region(str(Region(on, tuple(corners[::step])))) if len(corners) > 2 else None
    if boxes:
        (left, right), (low, high) = boxes[-1]["x"], boxes[-1]["y"]
        return read_region(str(Region(on, ((left, low), (right, low), (right, high), (left, high)))))
    return None
