"""`monosem match`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from app.arguments import RootArgs, parse
from app.log import progress
from app.summary import print_run
from autointerp.matching.config import MatchConfig
from autointerp.matching.job import match_indexes
from store.errors import UsageError
from store.run import Run, find_run, list_runs


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Lay two dictionaries side by side: which latents are the same, which are alone, which were split.

    Both indexes must be of the same tokens. Ask the result with `monosem sql --over matching`; docs/matching.md has its
    tables.

    Example: monosem match 3f2a 9c41
    """

    a: tyro.conf.Positional[str | None] = None
    """An index: its id, the start of one, a folder, or `latest`; nothing takes the two newest, the older as a."""
    b: tyro.conf.Positional[str | None] = None
    """The other."""
    match: MatchConfig = field(default_factory=MatchConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and match."""
    args = parse(Args, "match", arguments)
    a, b = _named(args)
    print_run(match_indexes(args.match, a, b, args.root, progress))


def _named(args: Args) -> Sequence[Run]:
    if args.a is None:
        newest = list_runs(args.root, "index")[-2:]
        if len(newest) < 2:
            raise UsageError(
                f"{len(newest)} finished index runs in {args.root}, and two are matched: make another first"
            )
        return newest
    if args.b is None:
        raise UsageError("one index was named, and two are matched: name both, or none for the two newest")
    return [find_run(args.root, name, "index") for name in (args.a, args.b)]
