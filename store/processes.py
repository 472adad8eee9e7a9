"""Which process is which: a number alone may by now be that of another process."""

import os
import platform
import subprocess
import time
from functools import cache
from pathlib import Path

GONE = frozenset("ZX")
"""States of a process that has ended and was not yet taken leave of."""
PROC = Path("/proc")


def began(pid: int) -> str | None:
    """What tells a living process from all others that ever had its number, on this machine; None where it is gone."""
    ticks = _ticks(pid)
    if ticks is not None:
        return f"{platform.node()} {_boot()} {ticks}"
    if PROC.joinpath("self").exists():
        return None
    told = _ps(pid)
    return f"{platform.node()} {told}" if told else None


def began_at(pid: int) -> float | None:
    """When a living process began, in seconds since 1970; None where it is gone, or the system does not say."""
    ticks = _ticks(pid)
    if ticks is None:
        return None
    running = float(PROC.joinpath("uptime").read_text(encoding="ascii").split()[0])
    return time.time() - running + ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int | None:
    """Ticks of the clock between the start of the machine and that of the process."""
    try:
        told = PROC.joinpath(str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None
    # After the name, which may hold anything, spaces and brackets too.
    fields = told.rpartition(")")[2].split()
    return None if fields[0] in GONE else int(fields[19])


@cache
def _boot() -> str:
    path = PROC / "sys/kernel/random/boot_id"
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def _ps(pid: int) -> str:
    """Where there is no /proc: state and start, as `ps` writes them."""
    asked = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return " ".join(told[1:]) if told and told[0][0] not in GONE else ""
