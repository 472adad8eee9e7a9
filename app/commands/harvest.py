"""`monosem harvest`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from activations.harvest import HarvestConfig, harvest
from app.arguments import RootArgs, parse
from app.log import progress
from app.summary import print_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Run a model over text and keep its activations at some hook points.

    Every token's vector is stored with its document and position. Asking for the same again does nothing; a harvest
    that was killed goes on where it stopped.

    Example: monosem harvest --model tiny --hook-points blocks.1.hook_resid_post --corpus stories --n-tokens 8000
    """

    harvest: HarvestConfig = field(default_factory=HarvestConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and harvest."""
    args = parse(Args, "harvest", arguments)
    print_run(harvest(args.harvest, args.root, progress))
