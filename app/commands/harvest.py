"""`monosem harvest`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from activations.harvest import HarvestConfig, harvest
from activations.repair import repair
from app.arguments import RootArgs, parse
from app.log import progress
from app.summary import print_run
from store.errors import UsageError
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Run a model over text and keep its activations at some hook points.

    Every token's vector is stored with its document and position. Asking for the same again does nothing; a harvest
    that was killed goes on where it stopped; one that was damaged is mended with --repair.

    Example: monosem harvest --model tiny --hook-points "blocks.*.hook_resid_post" --corpus stories --n-tokens 8000
    """

    repair: str | None = None
    """Harvest again only what is broken or missing of this run (an id, the start of one, a folder, or `latest`)."""
    harvest: HarvestConfig = field(default_factory=HarvestConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and harvest, or mend."""
    args = parse(Args, "harvest", arguments)
    if args.repair is None:
        print_run(harvest(args.harvest, args.root, progress))
        return
    if args.harvest != HarvestConfig():
        raise UsageError("--repair takes the settings of its run: leave the others out")
    run = find_run(args.root, args.repair, "activations")
    mended = repair(run, progress)
    print(f"mended {len(mended)} files: {', '.join(mended)}" if mended else "every file is as it was written")
