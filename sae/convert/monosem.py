"""Our own checkpoints, and runs that hold one: `sae.checkpoint` as a line in the table of formats."""

from pathlib import Path
from typing import Any

from sae import checkpoint
from sae.convert.files import json_in
from sae.convert.foreign import Foreign, Format

NAME = "monosem"


def recognises(source: Path) -> bool:
    """Whether config.json says that it is ours."""
    return json_in(source / checkpoint.CONFIG_FILE).get("format") == checkpoint.FORMAT


def read(source: Path) -> Foreign:
    """The checkpoint, with what made it."""
    sae, extra = checkpoint.load(source), checkpoint.describe(source).get("extra", {})
    others = extra.get("other_hook_points") or []
    out = others[0] if len(others) == 1 else None
    return Foreign(sae, {"format": NAME, **extra}, extra.get("hook_point"), extra.get("model"), out)


def write(folder: Path, foreign: Foreign) -> None:
    """A checkpoint of ours."""
    known = {"hook_point": foreign.hook_point, "model": foreign.model}
    told: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    if foreign.hook_point_out is not None:
        told["other_hook_points"] = [foreign.hook_point_out]
    checkpoint.save(folder, foreign.sae, {**told, "origin": foreign.origin})


FORMAT = Format(
    name=NAME,
    summary="checkpoints of this project: every variant",
    looks_for=f'{checkpoint.CONFIG_FILE} with "format": "{checkpoint.FORMAT}"',
    recognises=recognises,
    read=read,
    write=write,
)
