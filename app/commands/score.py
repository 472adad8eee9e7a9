"""`monosem score`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.arguments import DryRunArgs, parse
from app.interpretation.told import print_forecast, print_scores
from app.log import progress
from autointerp.forecast import forecast_score
from autointerp.scoring import ScoreConfig, score
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(DryRunArgs):
    """Score explanations on documents their explainer never saw, next to the same score for another latent's words.

    The `embedding` scorer gives the AUROC of text similarity between explanation and context: chance is 0.5.

    Example: monosem score --explanations latest
    """

    explanations: str = "latest"
    """The explanations: an id, the start of one, a folder, or `latest`."""
    score: ScoreConfig = field(default_factory=ScoreConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and score."""
    args = parse(Args, "score", arguments)
    explanations = find_run(args.root, args.explanations, "explanations")
    if args.dry_run:
        index = find_run(args.root, explanations.inputs["index"], "index")
        print_forecast(forecast_score(args.score, explanations, index, args.root, progress))
    else:
        print_scores(explanations, [score(args.score, explanations, args.root, progress)])
