"""`monosem plane`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.arguments import RootArgs, parse
from app.summary import print_run
from autointerp.plane import PlaneConfig, lay_out
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Lay latents out on a plane by UMAP of their decoder rows, and publish it in their index's table `plane`.

    Needs `pip install 'monosem[umap]'`. A newer plane takes the place of an older one.

    Example: monosem plane --index latest
    """

    index: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    plane: PlaneConfig = field(default_factory=PlaneConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and lay out."""
    args = parse(Args, "plane", arguments)
    print_run(lay_out(args.plane, find_run(args.root, args.index, "index"), args.root))
