"""`monosem index`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.arguments import RootArgs, parse
from app.log import progress
from app.summary import print_run
from autointerp.index.config import IndexConfig
from autointerp.index.job import build_index, repair_index
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Compute every statistic, context and relation of every latent, and publish them for dashboard, notebook and SQL.
    One that was killed goes on where it was.

    Example: monosem index --sae latest

    Example: monosem index --repair latest
    """

    sae: str = "latest"
    """The dictionary: an id, the start of one, a folder, or `latest`."""
    activations: str | None = None
    """The harvest; by default the one it was trained on."""
    repair: str | None = None
    """Mend this index instead: check every file, and make the damaged and missing ones again."""
    index: IndexConfig = field(default_factory=IndexConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and build, or mend."""
    args = parse(Args, "index", arguments)
    if args.repair is not None:
        _repair(args.repair, args)
        return
    sae_run = find_run(args.root, args.sae, "sae")
    activations_run = find_run(args.root, args.activations or sae_run.inputs["activations"], "activations")
    print_run(build_index(args.index, sae_run, activations_run, args.root, progress))


def _repair(reference: str, args: Args) -> None:
    run = find_run(args.root, reference, "index")
    mended = repair_index(run, progress)
    for name in mended:
        print(f"made again: {name}")
    if not mended:
        print(f"index {run.id} is whole")
