"""`monosem evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.arguments import RootArgs, parse
from app.evaluation.job import EvaluateConfig, evaluate_sae
from app.log import progress
from app.summary import print_run
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Measure a sparse autoencoder on held-out documents.

    Reconstruction (FVU, cosine, L0) by token class, dead latents, and the model's cross-entropy with the reconstruction
    spliced in, against the clean and the mean-ablated model.

    Example: monosem evaluate --sae latest
    """

    sae: str = "latest"
    """The dictionary: an id, the start of one, a folder, or `latest`."""
    activations: str | None = None
    """The harvest; by default the one it was trained on."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and evaluate."""
    args = parse(Args, "evaluate", arguments)
    sae_run = find_run(args.root, args.sae, "sae")
    activations_run = find_run(args.root, args.activations or sae_run.inputs["activations"], "activations")
    print_run(evaluate_sae(args.evaluate, sae_run, activations_run, args.root, progress))
