"""The command that makes a training again: run after a kill, it goes on from the last checkpoint."""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.commands.train import D_SAE, ITDA_STAND_INS, N_STEPS, STAND_INS, Args
from app.itda_training import ItdaJob
from app.trainings import kept_steps
from sae import VARIANTS
from sae.itda_build import BuildConfig
from sae.train import TrainConfig
from store.hashing import plain
from store.run import Run

ROOT = "runs"
"""What the command takes where no root is named."""


def train_command(run: Run) -> str | None:
    """`monosem train …` with every setting that is not the default; None for what the command line cannot ask for."""
    config, harvests = run.config, list(run.inputs.values())
    variant = config.get("variant")
    if variant == "itda":
        asked = [*_flags(ItdaJob, config, ITDA_STAND_INS), *_flags(BuildConfig, config["build"], {})]
    elif variant in VARIANTS:
        if not config["train"].get("initialise", True):
            return None
        asked = [
            *_flags(VARIANTS[variant].config_cls, {"d_sae": D_SAE} | config["sae"], STAND_INS, d_sae=D_SAE),
            *_flags(TrainConfig, config["train"], {"initialise": True}, n_steps=N_STEPS),
            *_flags(Args, _of_job(config), dict.fromkeys(("root", "activations", "hook_points"))),
        ]
    else:
        return None
    places = [config["hook_point"], *config.get("other_hook_points", ())]
    kept = kept_steps(run)  # not in the config: it changes nothing of what is trained
    asked += ["--keep-every", str(kept[0])] if kept else []
    root = [] if run.root == Path(ROOT) else ["--root", str(run.root)]
    return shlex.join(
        ["monosem", "train", variant, "--activations", *harvests, "--hook-points", *places, *asked, *root]
    )


def _of_job(config: Mapping[str, Any]) -> dict[str, Any]:
    """The job's own settings by the names that the command has for them."""
    return {"classes": config["classes"], "batch_size": config["batch_size"], "order_seed": config["seed"]}


def _flags(config_cls: type, values: Mapping[str, Any], hidden: Iterable[str], **defaults: Any) -> Iterator[str]:
    """A flag for each field whose value is not its default."""
    for field in dataclasses.fields(config_cls):
        if field.name in hidden or field.name not in values:
            continue
        value = values[field.name]
        if value != plain(defaults.get(field.name, _default(field))):
            yield from _flag(field.name.replace("_", "-"), value)


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    values = value if isinstance(value, list) else [value]
    return [f"--{name}", *map(str, values)]
