"""`monosem show`."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from app.arguments import RootArgs, parse
from app.summary import print_run, print_runs
from store.errors import UsageError
from store.run import find_run, list_runs


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """List the runs, or print what a run is, what made it and what it scored.

    Example: monosem show latest
    """

    run: tyro.conf.Positional[str | None] = None
    """An id, the start of one, a folder, or `latest`; nothing lists all runs."""
    verify: tyro.conf.FlagCreatePairsOff[bool] = False
    """Check every file's bytes against the checksum recorded when the run finished."""


def main(arguments: Sequence[str]) -> None:
    """Parse and print."""
    args = parse(Args, "show", arguments)
    if args.run is None:
        print_runs(list_runs(args.root), args.root)
        return
    run = find_run(args.root, args.run)
    print_run(run, full=True)
    if args.verify:
        if broken := run.broken_files():
            raise UsageError(
                f"{len(broken)} files are not as they were written: {', '.join(broken)}; make the run again"
            )
        print(f"all {len(run.manifest['files'])} files are as they were written")
