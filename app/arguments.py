"""What every command's arguments share: parsing a dataclass, and which folder the runs are in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RootArgs:
    """Where runs are kept."""

    root: Path = Path("runs")
    """Folder of all runs; a run lies in ROOT/KIND/ID, its ID the hash of what was asked for."""


def parse(args_cls: type[T], command: str, arguments: Sequence[str]) -> T:
    """The arguments of `monosem COMMAND`; tyro prints help and complaints, and exits with 0 or 2."""
    return tyro.cli(
        args_cls,
        prog=f"monosem {command}",
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes,),
    )
