"""`monosem verify`."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from app.arguments import RootArgs, parse
from app.log import progress
from store.errors import UsageError
from store.run import Run, find_run

NAMED = 5
"""Files named in the one line of an error; all of them are printed above it."""


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Check every file of a run against the checksum recorded when it was written.

    Names what is damaged and what is missing, and exits with status 2 if anything is.

    Example: monosem verify latest
    """

    run: tyro.conf.Positional[str]
    """An id, the start of one, a folder, or `latest`."""


def main(arguments: Sequence[str]) -> None:
    """Parse, read every file and compare."""
    args = parse(Args, "verify", arguments)
    run = find_run(args.root, args.run)
    broken = run.broken_files(progress)
    for name in broken:
        print(f"{'damaged' if (run.folder / name).exists() else 'missing'}  {name}")
    if broken:
        raise UsageError(_complaint(run, broken))
    files = run.manifest["files"]
    n_bytes = sum(entry["n_bytes"] for entry in files.values())
    print(f"all {len(files):,} files of {run.kind} {run.id} are as they were written ({n_bytes:,} bytes)")


def _complaint(run: Run, broken: Sequence[str]) -> str:
    named = ", ".join(broken[:NAMED]) + (f" and {len(broken) - NAMED:,} more" if len(broken) > NAMED else "")
    return (
        f"{len(broken):,} of {len(run.manifest['files']):,} files of {run.kind} {run.id} are damaged or missing: "
        f"{named}; {run.way_out}"
    )
