"""What a foreign checkpoint becomes, and what a format is: the two types that every reader and writer shares."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sae.base import SAE


class Foreign(NamedTuple):
    """A dictionary with what its checkpoint said besides."""

    sae: SAE
    """One of `sae.VARIANTS`, on CPU, that reconstructs what the foreign library does from the same raw x."""
    origin: dict[str, Any]
    """JSON values: the format, and whatever the checkpoint told that has no place in our config; what was folded in."""
    hook_point: str | None = None
    """Where it reads, in the checkpoint's own words; None where it does not say."""
    model: str | None = None
    """Of which model, in the checkpoint's own words; None where it does not say."""
    hook_point_out: str | None = None
    """What a transcoder predicts, in the checkpoint's own words; None of others, or where it does not say."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One library's checkpoints."""

    name: str
    """What `--from` and `--to` call it."""
    summary: str
    """Whose it is, and what is read of it: one line."""
    looks_for: str
    """What tells the format from others, for the message that none was recognised."""
    recognises: Callable[[Path], bool]
    """Whether a folder, or a file where the format is one, looks like it; reads names and JSON only, never raises."""
    read: Callable[[Path], Foreign]
    """What the folder or file holds. Raises UsageError, by the field's name, for what cannot be represented exactly."""
    write: Callable[[Path, Foreign], None] | None = None
    """Writes it into a folder, which is created. Raises UsageError where the format cannot hold the variant exactly;
    None: the format is only read."""
