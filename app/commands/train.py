"""`monosem train VARIANT`."""

import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.arguments import RootArgs, checked, parse, unchecked
from app.cli import choose
from app.itda_training import ItdaJob, train_itda
from app.log import progress
from app.summary import print_run
from app.training import TrainJob, open_activations, train_sae
from app.training_loop import Trail
from sae import VARIANTS
from sae.itda_build import BuildConfig
from sae.train import TrainConfig
from store.errors import UsageError
from store.run import find_run

STAND_INS: dict[str, Any] = {"d_in": 1, "d_out": 1, "site_widths": (1,)}
"""Widths are not asked for: they are those of the activations."""
ITDA_STAND_INS: dict[str, Any] = {"build": BuildConfig(), "hook_point": "", "variant": "itda"}
"""Given in another way, or not at all."""

N_STEPS, D_SAE = 700, 4608
"""Where they are not named: the demo's."""


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Train a sparse autoencoder on harvested activations, held-out documents left out.

    Run it again after an interruption, and it goes on from its last checkpoint.

    Example: monosem train topk --activations latest --d-sae 4608 --k 32 --n-steps 700
    """

    activations: tuple[str, ...] = ("latest",)
    """The harvest: an id, the start of one, a folder, or `latest`; for a crosscoder of several models, one for each
    hook point."""
    hook_points: tuple[str, ...] = ()
    """Which of its hook points; needed only where it has several. A transcoder reads the first, predicts the second; a
    crosscoder reads all."""
    classes: tuple[str, ...] = ("normal",)
    """Token classes trained on (normal, special, role, sink); first positions are always left out."""
    batch_size: int = 2048
    """Rows per step."""
    order_seed: int = 0
    """Order of the rows."""
    checkpoint_every: int = 200
    """Steps between checkpoints from which an interrupted run goes on; 0 writes none."""
    keep_every: int = 0
    """Steps between dictionaries that are kept, to be compared in the dashboard; the size of one each. 0 keeps none."""
    log_to: tuple[str, ...] = ()
    """Besides log.jsonl: `tensorboard`, `wandb`."""


def main(arguments: Sequence[str]) -> None:
    """Choose the variant, parse and train."""
    summaries = {name: (variant.__doc__ or "").strip().splitlines()[0] for name, variant in VARIANTS.items()}
    variant = choose("monosem train", inspect.getdoc(Args) or "", summaries, arguments)
    if variant is None:
        return
    if variant == "itda":
        _build_itda(arguments[1:])
        return
    args = parse(_args_with(variant), f"train {variant}", arguments[1:])
    runs = [find_run(args.root, reference, "activations") for reference in args.activations]
    activations = open_activations(runs, args.hook_points)
    config_cls = VARIANTS[variant].config_cls
    try:
        widths = config_cls.of_widths(activations.widths)
    except ValueError as error:
        raise UsageError(f"{error} with --hook-points") from error
    job = TrainJob(
        variant=variant,
        sae=checked(config_cls, args.sae, **widths),
        train=checked(TrainConfig, args.train),
        hook_point=activations.hook_points[0],
        other_hook_points=activations.hook_points[1:],
        classes=args.classes,
        batch_size=args.batch_size,
        seed=args.order_seed,
    )
    trail = Trail(checkpoint_every=args.checkpoint_every, keep_every=args.keep_every, log_to=args.log_to)
    print_run(train_sae(job, runs, args.root, progress, trail))


@dataclass(frozen=True, kw_only=True)
class ItdaArgs(RootArgs):
    """Build a dictionary of real activations: rows that the ones before reconstruct badly become atoms.

    Example: monosem train itda --activations latest --target-cos 0.9 --n-tokens 10000
    """

    activations: str = "latest"
    """The harvest: an id, the start of one, a folder, or `latest`."""
    hook_points: tuple[str, ...] = ()
    """Which of its hook points; needed only where it has several."""


def _build_itda(arguments: Sequence[str]) -> None:
    """An ITDA is built and not trained: it has settings of its own."""
    asked = {"job": unchecked(ItdaJob, ITDA_STAND_INS), "build": unchecked(BuildConfig)}
    args = parse(_with(ItdaArgs, asked), "train itda", arguments)
    run = find_run(args.root, args.activations, "activations")
    places = open_activations([run], args.hook_points).hook_points
    if len(places) != 1:
        raise UsageError(f"{len(places)} hook points, but this variant reads 1: name one with --hook-points")
    known = {"build": checked(BuildConfig, args.build), "hook_point": places[0], "variant": "itda"}
    job = checked(ItdaJob, args.job, **known)
    print_run(train_itda(job, run, args.root, progress))


def _args_with(variant: str) -> Any:
    """`Args` with the variant's own settings; its widths come from the activations, so they are not asked for."""
    config_cls = VARIANTS[variant].config_cls
    names = {field.name for field in dataclasses.fields(config_cls)}
    hidden = {name: value for name, value in STAND_INS.items() if name in names}
    asked: dict[str, Any] = {
        "train": unchecked(TrainConfig, {"initialise": True}, n_steps=N_STEPS),
        "sae": unchecked(config_cls, hidden, d_sae=D_SAE),
    }
    return _with(Args, asked)


def _with(args_cls: type, asked: dict[str, Any]) -> Any:
    """Arguments with other dataclasses' fields among them."""
    fields: list[Any] = [(name, cls, dataclasses.field(default_factory=cls)) for name, cls in asked.items()]
    namespace = {"__doc__": args_cls.__doc__}
    return dataclasses.make_dataclass("Args", fields, bases=(args_cls,), namespace=namespace, frozen=True, kw_only=True)
