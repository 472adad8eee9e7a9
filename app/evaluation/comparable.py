"""Whether figures of several dictionaries may be compared, and what each dictionary is called beside others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.evaluation.evaluated import Evaluated
from store.hashing import content_hash
from store.run import Run

HARVEST_SETTINGS = ("n_ctx", "model_dtype", "dtype", "sink_norm_ratio")
"""Those that change what a row is, or which class it has."""
ALL_PREDICTIONS = "all predictions"
RECOVERED = {"token_class": ALL_PREDICTIONS, "setting": "against mean ablation"}
"""Which of the recovered shares sum the others up."""
CLASSES = "token classes trained on"
BY_CLASS = ("reconstruction",)
"""Parts whose figures are each of one token class, whatever classes were trained on; `loss` edits those trained on."""
SETTINGS_OF = "settings of "
"""Before a part's name: what differs concerns that part's figures alone."""


@dataclass(frozen=True)
class Difference:
    """Something in which measurements of dictionaries are not alike."""

    name: str
    values: tuple[str, ...]
    """Of each dictionary, in the order given."""

    @property
    def part(self) -> str | None:
        """The part of the evaluation that it concerns; None for all of it."""
        return self.name.removeprefix(SETTINGS_OF) if self.name.startswith(SETTINGS_OF) else None

    def concerns(self, part: str) -> bool:
        """Whether it keeps the figures of a part from being compared."""
        if self.part is not None:
            return self.part == part
        return self.name != CLASSES or part not in BY_CLASS


def title(run: Run, n_seeds: int = 1) -> str:
    """A dictionary's few words: variant, width, what its sparsity is set by, and its id or how many seeds there are."""
    # of what another library trained only the widths are sure: other settings may be defaults that nobody chose
    settings = {} if "origin" in run.config else run.config.get("sae", {})
    told = [f"{key}={settings[key]}" for key in ("k", "target_l0", "l1_coefficient", "levels") if settings.get(key)]
    which = f"{n_seeds} seeds" if n_seeds > 1 else run.id[:8]
    origin = [f"from {run.config['origin'].get('format', 'elsewhere')}"] if "origin" in run.config else []
    return " ".join([run.config["variant"], str(run.results["d_sae"]), *told, *origin, f"({which})"])


def differences(evaluated: Sequence[Evaluated]) -> list[str]:
    """What keeps figures of these dictionaries from being compared, a sentence each; none where nothing does."""
    ids = [one.sae_run.id[:8] for one in evaluated]
    told = {
        d.name: "; ".join(f"{i}: {value}" for i, value in zip(ids, d.values, strict=True)) for d in unlike(evaluated)
    }
    return [f"{name} differ ({values})" for name, values in told.items()]


def unlike(evaluated: Sequence[Evaluated]) -> list[Difference]:
    """The same by name and value."""
    bases = [_basis(one) for one in evaluated]
    names = sorted({name for basis in bases for name in basis})
    each = [Difference(name, tuple(basis.get(name, "not measured") for basis in bases)) for name in names]
    return [one for one in each if len(set(one.values)) > 1]


def _basis(one: Evaluated) -> dict[str, str]:
    """What must agree for two dictionaries' figures to be about the same thing."""
    harvest, same = one.activations_run, one.activations_run.same
    settings = same.get("text_settings", {})
    settings_of = {
        f"{SETTINGS_OF}{part}": content_hash([run.config["settings"], run.config.get("version")])
        for part, run in one.runs.items()
    }
    return {
        "models": content_hash(same.get("model", {})),
        "texts": f"{content_hash([same.get('text'), settings])}, {harvest.results.get('n_tokens', 0):,} tokens",
        "hook points": one.sae_run.config["hook_point"],
        "settings of harvests": ", ".join(
            f"{key}={same['settings'][key]}" for key in HARVEST_SETTINGS if same.get("settings")
        ),
        "norms that make sinks": f"{_sink_norm(one):.4g}",
        CLASSES: "+".join(one.sae_run.config.get("classes", [])),
    } | settings_of


def _sink_norm(one: Evaluated) -> float:
    return (
        one.activations_run.results["hook_points"].get(one.sae_run.config["hook_point"], {}).get("sink_norm", math.nan)
    )
