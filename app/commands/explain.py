"""`monosem explain`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.arguments import DryRunArgs, parse
from app.interpretation.told import print_forecast
from app.log import progress
from app.summary import print_run
from autointerp.explaining import ExplainConfig, explain
from autointerp.forecast import forecast_explain
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(DryRunArgs):
    """Say in words what latents respond to, from contexts of documents kept apart from those that scores use.

    The `tokens` explainer counts what a latent fires on, what comes before and what it promotes. No language model.

    Example: monosem explain --n-latents 30
    """

    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    explain: ExplainConfig = field(default_factory=ExplainConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and explain."""
    args = parse(Args, "explain", arguments)
    index = find_run(args.root, args.index_run, "index")
    if args.dry_run:
        print_forecast(forecast_explain(args.explain, index, args.root, progress))
    else:
        print_run(explain(args.explain, index, args.root, progress))
