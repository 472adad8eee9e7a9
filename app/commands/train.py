"""`monosem train VARIANT`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from activations.reader import Activations
from app.arguments import RootArgs, checked, parse, unchecked
from app.cli import choose
from app.log import progress
from app.summary import print_run
from app.training import TrainJob, train_sae
from sae import VARIANTS
from sae.train import TrainConfig
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Train a sparse autoencoder on harvested activations, held-out documents left out.

    Example: monosem train topk --activations latest --d-sae 4608 --k 32 --n-steps 700
    """

    activations: str = "latest"
    """The harvest: an id, the start of one, a folder, or `latest`."""
    hook_point: str | None = None
    """Which of its hook points; needed only where it has several."""
    classes: tuple[str, ...] = ("normal",)
    """Token classes trained on (normal, special, role, sink); first positions are always left out."""
    batch_size: int = 2048
    """Rows per step."""
    order_seed: int = 0
    """Order of the rows."""


def main(arguments: Sequence[str]) -> None:
    """Choose the variant, parse and train."""
    summaries = {name: (variant.__doc__ or "").strip().splitlines()[0] for name, variant in VARIANTS.items()}
    variant = choose("monosem train", (Args.__doc__ or "").strip(), summaries, arguments)
    if variant is None:
        return
    args = parse(_args_with(variant), f"train {variant}", arguments[1:])
    activations_run = find_run(args.root, args.activations, "activations")
    activations = Activations(activations_run, args.hook_point)
    job = TrainJob(
        variant=variant,
        sae=checked(VARIANTS[variant].config_cls, args.sae, d_in=activations.d_in),
        train=checked(TrainConfig, args.train),
        hook_point=activations.hook_point,
        classes=args.classes,
        batch_size=args.batch_size,
        seed=args.order_seed,
    )
    print_run(train_sae(job, activations_run, args.root, progress))


def _args_with(variant: str) -> Any:
    """`Args` with the variant's own settings; its input width comes from the activations, so it is not asked for."""
    asked: dict[str, Any] = {
        "train": unchecked(TrainConfig, n_steps=700),
        "sae": unchecked(VARIANTS[variant].config_cls, hidden=("d_in",), d_in=1, d_sae=4608),
    }
    fields: list[Any] = [
        (name, config_cls, dataclasses.field(default_factory=config_cls)) for name, config_cls in asked.items()
    ]
    namespace = {"__doc__": Args.__doc__}
    return dataclasses.make_dataclass("Args", fields, bases=(Args,), namespace=namespace, frozen=True, kw_only=True)
