"""`monosem score`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.arguments import RootArgs, parse
from app.log import progress
from app.summary import print_run
from autointerp.scoring import ScoreConfig, score
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
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
    print_run(score(args.score, find_run(args.root, args.explanations, "explanations"), args.root, progress))
