"""How many entries there is room for, where waiting for their number would cost a step."""

import logging
import math

import torch
from jaxtyping import Int
from torch import Tensor

log = logging.getLogger(__name__)

SLACK = 1.5
"""Room over the most entries that were needed lately."""


class Room:
    """The number of entries that a step may keep; it is looked at now and then, and grows before it is short."""

    def __init__(self) -> None:
        self._size: int | None = None
        self._needed: Int[Tensor, ""] | None = None

    def size(self, most: int) -> int:
        """Entries there is room for, of `most` that there can be."""
        return most if self._size is None else min(most, self._size)

    def see(self, n: Int[Tensor, ""]) -> None:
        """Take note that a step needed `n`."""
        self._needed = n if self._needed is None else torch.maximum(self._needed, n)

    def look(self) -> int:
        """Make room for what was needed since the last look, which waits for the device; how many entries were left
        out of the fullest step because there was none."""
        if self._needed is None:
            return 0
        needed = int(self._needed)
        missing = max(0, needed - self._size) if self._size is not None else 0
        if missing:
            log.warning("%s active latents of a step did not fit and were left out of it; there is room now", missing)
        self._size, self._needed = max(1, math.ceil(SLACK * needed)), None
        return missing
