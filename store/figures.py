"""Measured numbers as rows: what was measured, on how much, of what, how sure, and beside which control."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import UsageError
from store.files import whole_file
from store.run import Run
from store.tables import CURVES, FIGURES

FIGURES_FILE = "figures.parquet"
CURVES_FILE = "curves.parquet"
SAE_ARM = "sae"
"""The arm that is the dictionary itself; every other one is a control or a baseline."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number."""

    metric: str
    """What was measured; one definition a name."""
    value: float | None
    """None where it could not be told, and `note` says why."""
    n: int
    """How many units it is over."""
    n_of: str
    """What those are: rows, documents, texts, latents, pairs, seeds."""
    token_class: str = ""
    """Of the rows; empty where it is not over rows."""
    arm: str = SAE_ARM
    """The dictionary, or the control or baseline beside it."""
    setting: str = ""
    """Whatever else it depends on, such as `k=5 topics`."""
    low: float | None = None
    """The 95 % interval, where there is one."""
    high: float | None = None
    note: str = ""
    """How the interval was made, or why there is no value."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line, or one set of bars or points, of a plot."""

    plot: str
    """Which plot: a key of the report's table of plots."""
    series: str
    """Its name in the legend."""
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """What one part of an evaluation found."""

    figures: Sequence[Figure] = ()
    curves: Sequence[Curve] = field(default=())


def write_measured(folder: Path, measured: Measured) -> None:
    """Write both tables into `folder`."""
    tables = {FIGURES_FILE: (measured.figures, FIGURES), CURVES_FILE: (measured.curves, CURVES)}
    for name, (rows, schema) in tables.items():
        _write(folder / name, [asdict(row) for row in rows], schema)


def read_measured(run: Run) -> Measured:
    """What a finished part wrote.

    Raises:
        UsageError: one of its files is damaged or missing.
    """
    figures, curves = (_read(run, name, schema) for name, schema in ((FIGURES_FILE, FIGURES), (CURVES_FILE, CURVES)))
    return Measured(
        [Figure(**row) for row in figures],
        [Curve(**{**row, "x": tuple(row["x"]), "y": tuple(row["y"])}) for row in curves],
    )


def find(figures: Iterable[Figure], metric: str, **where: str) -> Figure | None:
    """The first figure of this metric whose fields are as said; by default the dictionary's own."""
    wanted = {"arm": SAE_ARM, "metric": metric} | where
    return next((f for f in figures if all(getattr(f, key) == value for key, value in wanted.items())), None)


def _read(run: Run, name: str, schema: pa.Schema) -> list[dict[str, Any]]:
    path = run.folder / name
    try:
        return pq.read_table(path, schema=schema).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path} is damaged or missing: {run.way_out}") from error


def _write(path: Path, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    with whole_file(path) as scratch:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), scratch)
