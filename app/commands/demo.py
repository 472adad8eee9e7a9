"""`monosem demo`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.arguments import parse
from app.log import console, progress, stage
from app.summary import headline
from store.errors import UsageError
from store.run import Run

if TYPE_CHECKING:
    from app.evaluation.evaluated import Evaluated
    from app.recipes import Recipe

N_STAGES = 6


@dataclass(frozen=True, kw_only=True)
class Args:
    """The whole path on a real model, then the dashboard: load, harvest, train, evaluate, index, explain, score, serve.

    Everything is kept: a second demo reuses what is finished and is up in seconds.

    Example: monosem demo --no-serve --out runs
    """

    recipe: str = "smollm2"
    """`smollm2` (a real model, minutes on two cores) or `tiny` (a random model, seconds, nothing to fetch)."""
    out: Path = Path("runs")
    """Folder of all runs."""
    serve: bool = True
    """Open the dashboard at the end."""
    port: int = 8501
    """Where the dashboard listens."""


def main(arguments: Sequence[str]) -> None:
    """Parse, run every stage, serve."""
    args = parse(Args, "demo", arguments)
    index = run_demo(args.recipe, args.out)
    if args.serve:
        from app.commands.serve import serve

        serve(args.out, index.id, args.port)


def run_demo(name: str, root: Path) -> Run:
    """Every stage of a recipe; the index it ends with.

    Raises:
        UsageError: there is no such recipe, or a stage could not be done.
    """
    with stage(1, N_STAGES, "load the model") as done:
        # Here, not above: the first line is on the screen before torch begins to load.
        from activations.models import find_model

        recipe = _recipe(name)
        files = find_model(recipe.harvest.model)
        done.produced = f"{recipe.harvest.model}, weights {files.weights_hash}, in {files.folder or 'memory'}"
    with stage(2, N_STAGES, f"harvest {', '.join(recipe.harvest.hook_points)}") as done:
        from activations.harvest import harvest

        activations = harvest(recipe.harvest, root, progress)
        done.produced = headline(activations)
    with stage(3, N_STAGES, f"train a {recipe.variant} SAE and evaluate it on held-out documents") as done:
        sae, evaluated = _train_and_evaluate(recipe, activations, root)
        done.produced = "; ".join([headline(sae), *map(headline, evaluated.runs.values())])
    with stage(4, N_STAGES, "build the feature index") as done:
        from autointerp.index.job import build_index

        index = build_index(recipe.index, sae, activations, root, progress)
        done.produced = headline(index)
    _interpret(recipe, index, root)
    console.print(f"runs are in [bold]{root}[/bold]: try `monosem show --root {root}`")
    return index


def _recipe(name: str) -> "Recipe":
    from app.recipes import RECIPES

    if name not in RECIPES:
        raise UsageError(f"no recipe '{name}': choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()


def _train_and_evaluate(recipe: "Recipe", activations: Run, root: Path) -> "tuple[Run, Evaluated]":
    from app.evaluation.job import evaluate_dictionary
    from app.training import TrainJob, train_sae, variant_config

    hook_point = recipe.harvest.hook_points[0]
    d_in = activations.results["hook_points"][hook_point]["d_in"]
    job = TrainJob(
        variant=recipe.variant,
        sae=variant_config(recipe.variant, [d_in], recipe.sae),
        train=recipe.train,
        hook_point=hook_point,
        classes=recipe.classes,
        batch_size=recipe.batch_size,
    )
    sae = train_sae(job, activations, root, progress)
    return sae, evaluate_dictionary(recipe.evaluate, sae, activations, root, progress)


def _interpret(recipe: "Recipe", index: Run, root: Path) -> None:
    from autointerp.explaining import explain
    from autointerp.scoring import score

    with stage(5, N_STAGES, "explain latents by counting tokens, no language model") as done:
        explanations = explain(recipe.explain, index, root, progress)
        done.produced = headline(explanations)
    with stage(6, N_STAGES, "score the explanations on documents they have not seen") as done:
        done.produced = headline(score(recipe.score, explanations, root, progress))
