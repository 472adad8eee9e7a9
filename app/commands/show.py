"""`monosem show`."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from app.arguments import RootArgs, parse
from app.summary import print_run, print_runs
from store.run import find_run, list_runs


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """List the runs, or print what a run is, what made it and what it scored.

    Example: monosem show latest
    """

    run: tyro.conf.Positional[str | None] = None
    """An id, the start of one, a folder, or `latest`; nothing lists all runs."""


def main(arguments: Sequence[str]) -> None:
    """Parse and print."""
    args = parse(Args, "show", arguments)
    if args.run is None:
        print_runs(list_runs(args.root), args.root)
        return
    print_run(find_run(args.root, args.run), full=True)
