"""`monosem match`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from app.arguments import RootArgs, parse
from app.log import progress
from app.summary import print_run
from autointerp.matching.config import MatchConfig
from autointerp.matching.job import match_indexes
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Lay two dictionaries side by side: which latents are the same, which are alone, which were split.

    Both indexes must be of the same tokens. Ask the result with `monosem sql --over matching`.

    Example: monosem match 3f2a 9c41
    """

    a: tyro.conf.Positional[str]
    """An index: its id, the start of one, a folder, or `latest`."""
    b: tyro.conf.Positional[str]
    """The other."""
    match: MatchConfig = field(default_factory=MatchConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and match."""
    args = parse(Args, "match", arguments)
    a, b = (find_run(args.root, name, "index") for name in (args.a, args.b))
    print_run(match_indexes(args.match, a, b, args.root, progress))
