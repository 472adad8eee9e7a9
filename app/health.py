"""How good each dictionary is: what was measured of it on held-out text, and which indexes there are of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from app.evaluation.evaluated import NOT_APPLICABLE, Evaluated, evaluations_among
from app.summary import headline
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.figures import Figure, find, read_measured
from store.run import Run, read_run
from store.under_way import Survey

PER_DECADE = 4
"""Bins of a histogram of densities."""
DENSITIES = f"""
SELECT floor(log10(density) * {PER_DECADE})::INTEGER AS bin, count(*) AS n FROM latents WHERE density > 0
GROUP BY bin ORDER BY bin
"""


@dataclass(frozen=True)
class Tile:
    """A figure of the evaluation and how it is shown."""

    part: str
    where: Mapping[str, str]
    label: str
    form: str
    help: str


TILES = (
    Tile(
        "reconstruction",
        {"metric": "fvu", "token_class": "normal"},
        "FVU, normal tokens",
        "{:.3f}",
        "Fraction of variance unexplained: squared error of the reconstruction over the variance of the activations. "
        "0 is perfect, 1 is no better than the mean. Other token classes are below.",
    ),
    Tile(
        "reconstruction",
        {"metric": "l0", "token_class": "normal"},
        "L0",
        "{:.1f}",
        "Mean number of latents active on a normal token.",
    ),
    Tile("reconstruction", {"metric": "n_dead"}, "Dead latents", "{:,.0f}", "Latents active on none of the tokens."),
    Tile(
        "loss",
        {"metric": "loss_recovered", "setting": "against mean ablation"},
        "Loss recovered",
        "{:.1%}",
        "Replacing the activation by its mean raises the model's cross-entropy; this is how much of that rise is "
        "avoided by replacing it with the reconstruction. 100%: the model does as well as untouched.",
    ),
)


class Health(NamedTuple):
    """One dictionary."""

    sae: Run
    indexes: tuple[Run, ...]
    """Of it, the newest first."""
    evaluated: Evaluated | None
    figures: Mapping[str, Figure | None]
    """By the label of its tile; None where it was not measured."""
    damaged: str = ""
    """Why what was measured cannot be read."""


def health(found: Survey, root: Path) -> list[Health]:
    """Every dictionary of a root, the newest first."""
    evaluations = found.of_kind("evaluation")[::-1]
    indexes = found.of_kind("index")
    return [_health(sae, root, evaluations, indexes) for sae in found.of_kind("sae")]


def _health(sae: Run, root: Path, evaluations: Sequence[Run], indexes: Iterable[Run]) -> Health:
    own = tuple(index for index in indexes if index.inputs.get("sae") == sae.id)
    evaluated = (evaluations_among(evaluations, root, sae) or [None])[-1]
    try:
        return Health(sae, own, evaluated, _figures(evaluated))
    except UsageError as error:
        return Health(sae, own, evaluated, _figures(None), str(error))


def _figures(evaluated: Evaluated | None) -> dict[str, Figure | None]:
    if evaluated is None:
        return {tile.label: None for tile in TILES}
    parts = {part: _measured(evaluated.runs.get(part)) for part in {tile.part for tile in TILES}}
    return {tile.label: find(parts[tile.part], **tile.where) for tile in TILES}


def _measured(run: Run | None) -> Sequence[Figure]:
    return () if run is None or NOT_APPLICABLE in run.results else _read(run.folder, run.manifest["finished_at"])


@lru_cache(maxsize=1024)
def _read(folder: Path, finished_at: str) -> Sequence[Figure]:
    """A finished run's figures: they never change."""
    del finished_at  # another run than that of another time
    return read_measured(read_run(folder)).figures


def what_is(run: Run) -> str:
    """A few words that tell one run of a kind from another; none for a run of another version, which has others."""
    try:
        return headline(run)
    except (KeyError, TypeError, IndexError):
        return ""


@lru_cache(maxsize=64)
def densities(folder: Path, version: str) -> pd.DataFrame:
    """How many latents of a version of an index are how dense: `bin` (quarters of a decade) and `n`.

    Raises:
        UsageError: nothing is published there.
    """
    del version  # another table than that of another version
    return FeatureIndex(folder).sql(DENSITIES)
