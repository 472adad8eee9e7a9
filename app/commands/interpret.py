"""`monosem interpret`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.arguments import DryRunArgs, parse
from app.interpretation.told import print_forecast, print_scores
from app.log import progress
from autointerp.forecast import forecast
from autointerp.interpret import InterpretConfig, interpret
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(DryRunArgs):
    """Explain latents and score what was said, next to nulls; a job that was stopped goes on where it was.

    `--explainer default --scorers detection fuzzing` ask a language model, the one that `--backend` names.

    Example: monosem interpret --n-latents 30 --scorers embedding
    """

    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    interpret: InterpretConfig = field(default_factory=InterpretConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse, explain and score."""
    args = parse(Args, "interpret", arguments)
    index = find_run(args.root, args.index_run, "index")
    if args.dry_run:
        print_forecast(forecast(args.interpret, index, args.root, progress))
    else:
        print_scores(*interpret(args.interpret, index, args.root, progress))
