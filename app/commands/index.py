"""`monosem index`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.arguments import RootArgs, parse
from app.log import progress
from app.summary import print_run
from autointerp.index.config import IndexConfig
from autointerp.index.job import build_index
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Compute every statistic and context of every latent, and publish them for dashboard, notebook and SQL.

    Example: monosem index --sae latest
    """

    sae: str = "latest"
    """The dictionary: an id, the start of one, a folder, or `latest`."""
    activations: str | None = None
    """The harvest; by default the one it was trained on."""
    index: IndexConfig = field(default_factory=IndexConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and build."""
    args = parse(Args, "index", arguments)
    sae_run = find_run(args.root, args.sae, "sae")
    activations_run = find_run(args.root, args.activations or sae_run.inputs["activations"], "activations")
    print_run(build_index(args.index, sae_run, activations_run, args.root, progress))
