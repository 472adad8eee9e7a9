"""The job that sweeps: every cell measured and kept by itself, then the summary."""

import logging
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from activations.generation import NotFinite
from activations.progress import Progress, no_progress
from autointerp.statistics import clustered_mean
from autointerp.steer_config import intervention
from autointerp.sweep.arms import (
    CLEAN,
    INSTRUCTION,
    LATENTS,
    MEAN_DIFFERENCE,
    RANDOM_DIRECTION,
    RANDOM_LATENTS,
    Arms,
    takes_away,
)
from autointerp.sweep.config import Cell, SweepConfig
from autointerp.sweep.measures import in_part
from autointerp.sweep.reading import Cells, Rows, not_finite, refuse_texts
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.files import read_json, write_json
from store.matching import write_table
from store.run import Run, start_run
from store.swept import SCHEMAS

if TYPE_CHECKING:
    from autointerp.subject import Subject

log = logging.getLogger(__name__)
CELLS = ".cells"
"""Folder of what was measured already, until the run is finished."""
EFFECT = "mass"
CONTROLS = (RANDOM_LATENTS, RANDOM_DIRECTION, MEAN_DIFFERENCE)
MOST_PERPLEXITY = 1.25
"""Times the clean texts' perplexity that steered ones may have in the suggested range."""


def sweep(
    cfg: SweepConfig,
    index_run: Run,
    root: Path,
    progress: Progress = no_progress,
    subject: "Subject | None" = None,
) -> Run:
    """Measure every arm at every strength in every tier, into `root/steering/<hash>`, or return what is already there.

    Cells that were measured before a kill are not measured again.

    Args:
        cfg: what.
        index_run: whose model and dictionary.
        root: of the run.
        progress: told of every cell.
        subject: in place of the one that the index is of.

    Raises:
        UsageError: a text does not fit, an edit cannot be made, or there are too few other latents.
    """
    with start_run(root, "steering", cfg, {"index": index_run.id}) as run:
        if not run.finished:
            job = _Job(cfg, run, index_run, subject)
            for _ in progress(job.steps(), len(job.every), "steer"):
                pass
    return run


class Measured(NamedTuple):
    """How far a sweep is."""

    n_done: int
    """Cells."""
    n_cells: int
    cell: Cell
    """The last that was measured."""


def steps(cfg: SweepConfig, index_run: Run, root: Path, subject: "Subject | None" = None) -> Iterator[Measured | Run]:
    """What `sweep` does, cell by cell; the run is the last item. Whoever stops keeps the cells that were measured.

    Raises:
        UsageError: as `sweep`, once the first item is asked for.
    """
    with start_run(root, "steering", cfg, {"index": index_run.id}) as run:
        if not run.finished:
            yield from _Job(cfg, run, index_run, subject).steps()
    yield run


class _Job:
    def __init__(self, cfg: SweepConfig, run: Run, index_run: Run, subject: "Subject | None") -> None:
        from autointerp.subject import Subject

        self.cfg, self.run = cfg, run
        self.subject = subject or Subject.open(index_run, run.root)
        density = FeatureIndex(index_run.folder).arrow("SELECT density FROM latents ORDER BY latent").column(0)
        self.arms = Arms(cfg, self.subject, np.asarray(density.to_numpy(zero_copy_only=False), float))
        self.cells = Cells(cfg, self.subject, self.arms)

    @cached_property
    def every(self) -> list[Cell]:
        """All cells, none of them refused."""
        refuse_texts(self.cfg, self.subject)
        cells = self.arms.cells()
        self._refuse(cells)
        return cells

    def steps(self) -> Iterator[Measured]:
        """Measure cell by cell; the run is finished after the last."""
        found: dict[str, Rows] = defaultdict(list)
        for number, cell in enumerate(self.every):
            for table, rows in self._cell(number, cell).items():
                found[table] += rows
            yield Measured(number + 1, len(self.every), cell)
        self._finish(found)

    def _finish(self, found: dict[str, Rows]) -> None:
        found["summary"] = summary(found["measures"])
        for table, schema in SCHEMAS.items():
            write_table(
                self.run.folder, table, {name: [row[name] for row in found[table]] for name in schema.names}, SCHEMAS
            )
        shutil.rmtree(self.run.folder / CELLS, ignore_errors=True)
        in_parts = in_part(self.subject.lm.tokenizer, self.cfg.words)
        self.run.finish(results(self.cfg, found["summary"]) | {"words_in_part": in_parts})

    def _refuse(self, cells: Sequence[Cell]) -> None:
        """What cannot be done is said before anything is measured."""
        for cell in cells:
            if cell.arm == LATENTS and cell.edit is not None:
                intervention([cell.edit], self.subject.sae, self.subject.units)
        if self.cfg.n_draws:
            _ = self.arms.others

    def _cell(self, number: int, cell: Cell) -> dict[str, Rows]:
        """What was measured of a cell, before or now; the clean model is asked each time, as others need it."""
        file = self.run.folder / CELLS / f"{number}.json"
        if file.exists() and cell.arm != CLEAN:
            return read_json(file)
        try:
            rows = self.cells.measure(cell)
        except NotFinite as error:
            log.warning("%s at strength %g, tier %s: %s", cell.arm, cell.strength, cell.tier or "none", error)
            rows = not_finite(cell)
        except UsageError as error:
            raise UsageError(
                f"{cell.arm} at strength {cell.strength:g}, tier {cell.tier or 'none'}: {error}"
            ) from error
        file.parent.mkdir(exist_ok=True)
        write_json(file, rows)
        return rows


def summary(measures: Rows) -> Rows:
    """Every cell and measure over texts, beside the clean model's on the same texts."""
    by_cell: dict[tuple[Any, ...], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in measures:
        if row["value"] is not None:
            key = (row["arm"], row["draw"], row["tier"], row["strength"], row["measure"])
            by_cell[key][row["item"]].append(row["value"])
    means = {key: {item: float(np.mean(values)) for item, values in items.items()} for key, items in by_cell.items()}
    return [_summed(key, own, means.get((CLEAN, 0, "", 0.0, key[-1]), {})) for key, own in means.items()]


def _summed(key: tuple[Any, ...], own: dict[int, float], clean: dict[int, float]) -> dict[str, Any]:
    mean, both = _mean(own.values()), sorted(own.keys() & clean.keys())
    above = _mean(own[item] - clean[item] for item in both)
    names = ("arm", "draw", "tier", "strength", "measure")
    return dict(zip(names, key, strict=True)) | {
        "mean": mean[0],
        "ci_low": mean[1],
        "ci_high": mean[2],
        "n": len(own),
        "above_clean": above[0],
        "above_low": above[1],
        "above_high": above[2],
    }


def _mean(values: Iterable[float]) -> tuple[float | None, float | None, float | None]:
    every = list(values)
    found = clustered_mean(every, range(len(every)))
    low, high = found.interval or (None, None)
    return found.value, low, high


def results(cfg: SweepConfig, rows: Rows) -> dict[str, Any]:
    """The effect at every tier and strength beside the controls, and which strengths are suggested."""
    effects = [_effect(rows, tier, strength) for tier in cfg.tiers for strength in cfg.tried]
    told = _pick(rows, INSTRUCTION, {"tier": "", "strength": 0.0}, EFFECT)
    return {
        "effects": effects,
        "instruction": told and {"mass": told["mean"], **_above(told)},
        # Without texts nothing is known of how likely they are.
        "suggested": {
            tier: [each["strength"] for each in effects if each["tier"] == tier and _good(cfg, each)]
            for tier in cfg.tiers
            if cfg.n_seeds
        },
        "not_finite": [
            {name: row[name] for name in ("arm", "draw", "tier", "strength")}
            for row in rows
            if row["measure"] == "not_finite"
        ],
    }


def _effect(rows: Rows, tier: str, strength: float) -> dict[str, Any]:
    at = {"tier": tier, "strength": strength}
    own = _pick(rows, LATENTS, at, EFFECT)
    controls = {
        arm: _control(own, [_pick(rows, arm, at | {"draw": draw}, EFFECT) for draw in _draws(rows, arm)])
        | {"share_of_norm": _mean_of(rows, arm, at, "share_of_norm")}
        for arm in CONTROLS
        if _draws(rows, arm)
    }
    fluency = _pick(rows, LATENTS, at, "log_perplexity")
    ratio = None if fluency is None or fluency["above_clean"] is None else float(np.exp(fluency["above_clean"]))
    return at | {
        "mass": own and own["mean"],
        **_above(own),
        "controls": controls,
        "perplexity_ratio": ratio,
        "empty": _mean_of(rows, LATENTS, at, "empty", "above_clean"),
        "kl_retain": _mean_of(rows, LATENTS, at, "kl_retain"),
        "share_of_norm": _mean_of(rows, LATENTS, at, "share_of_norm"),
    }


def _above(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"above_clean": None, "interval": None}
    return {"above_clean": row["above_clean"], "interval": [row["above_low"], row["above_high"]]}


def _mean_of(rows: Rows, arm: str, at: dict[str, Any], measure: str, column: str = "mean") -> float | None:
    """Over the draws of an arm."""
    found = [_pick(rows, arm, at | {"draw": draw}, measure) for draw in _draws(rows, arm)]
    values = [row[column] for row in found if row is not None and row[column] is not None]
    return float(np.mean(values)) if values else None


def _draws(rows: Rows, arm: str) -> list[int]:
    return sorted({row["draw"] for row in rows if row["arm"] == arm})


def _pick(rows: Rows, arm: str, at: dict[str, Any], measure: str) -> dict[str, Any] | None:
    wanted = {"draw": 0, **at, "arm": arm, "measure": measure}
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def _control(own: dict[str, Any] | None, draws: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """What a control does, and the interval in which 95 in 100 of its draws lie; an effect outside of it is not theirs
    too."""
    from scipy.stats import t

    values = [row["above_clean"] for row in draws if row is not None and row["above_clean"] is not None]
    n, mean = len(values), float(np.mean(values)) if values else None
    interval = None
    # Draws that are all alike tell nothing of how others would lie.
    if mean is not None and np.ptp(values) > 0:
        half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) * np.sqrt(1 + 1 / n))
        interval = [mean - half, mean + half]
    effect: float | None = own["above_clean"] if own else None
    outside = None if interval is None or effect is None else not interval[0] <= effect <= interval[1]
    return {"above_clean": mean, "n_draws": n, "interval": interval, "outside": outside}


def _good(cfg: SweepConfig, effect: dict[str, Any]) -> bool:
    """Whether a strength does what it is for, beyond its own interval and all random draws, in texts that are about as
    likely as clean ones and no emptier."""
    ends = effect["interval"]
    if ends is None or None in ends or effect["perplexity_ratio"] is None:
        return False
    down = takes_away(replace(cfg.edit, strength=(effect["strength"],)))
    wanted = ends[1] < 0 if down else ends[0] > 0
    random = [
        effect["controls"][arm]["outside"] for arm in (RANDOM_LATENTS, RANDOM_DIRECTION) if arm in effect["controls"]
    ]
    fluent = effect["perplexity_ratio"] <= MOST_PERPLEXITY and (effect["empty"] or 0.0) <= 0
    return wanted and fluent and bool(random) and all(random)
