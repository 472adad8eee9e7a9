"""The job that sweeps: every cell measured and kept by itself, then the summary."""

import logging
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from activations.generation import NotFinite
from activations.progress import Progress, no_progress
from autointerp.llm.config import open_llm
from autointerp.steer_config import intervention
from autointerp.sweep.arms import CLEAN, LATENTS, Arms
from autointerp.sweep.config import Cell, SweepConfig
from autointerp.sweep.judge import Judge
from autointerp.sweep.measures import in_part
from autointerp.sweep.probe import concept_probe
from autointerp.sweep.reading import Cells, Rows, not_finite, refuse_texts
from autointerp.sweep.results import n_unrated, results, summary
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
    with start_run(root, "steering", cfg.identity, {"index": index_run.id}) as run:
        if not run.finished:
            job = _accepted(cfg, run, index_run, subject)
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
    with start_run(root, "steering", cfg.identity, {"index": index_run.id}) as run:
        if not run.finished:
            yield from _accepted(cfg, run, index_run, subject).steps()
    yield run


def _accepted(cfg: SweepConfig, run: Run, index_run: Run, subject: "Subject | None") -> "_Job":
    """The job, unless it is refused: of that nothing is left behind."""
    try:
        job = _Job(cfg, run, index_run, subject)
        _ = job.every
    except UsageError:
        if not (run.folder / CELLS).exists():
            shutil.rmtree(run.folder, ignore_errors=True)
        raise
    return job


class _Job:
    def __init__(self, cfg: SweepConfig, run: Run, index_run: Run, subject: "Subject | None") -> None:
        from autointerp.subject import Subject

        self.cfg, self.run = cfg, run
        self.subject = subject or Subject.open(index_run, run.root)
        density = FeatureIndex(index_run.folder).arrow("SELECT density FROM latents ORDER BY latent").column(0)
        self.arms = Arms(cfg, self.subject, np.asarray(density.to_numpy(zero_copy_only=False), float))
        self.cells = Cells(cfg, self.subject, self.arms, judge=self._judge())

    def _judge(self) -> Judge | None:
        if not self.cfg.concept:
            return None
        return Judge(open_llm(self.cfg.llm, self.run.root, self.run.id), self.cfg.concept)

    def _train_probe(self) -> dict[str, Any] | None:
        """Have texts probed from now on; how good the probe is."""
        if not (self.cfg.concept_texts and self.cfg.n_seeds):
            return None
        found = concept_probe(self.subject, self.cfg.concept_texts, self.cfg.retain, self.cfg.seed)
        self.cells.probe = found.scale
        return found.told

    @cached_property
    def every(self) -> list[Cell]:
        """All cells, none of them refused."""
        refuse_texts(self.cfg, self.subject)
        cells = self.arms.cells()
        self._refuse(cells)
        return cells

    def steps(self) -> Iterator[Measured]:
        """Measure cell by cell; the run is finished after the last."""
        every, probe = self.every, self._train_probe()
        found: dict[str, Rows] = defaultdict(list)
        for number, cell in enumerate(every):
            for table, rows in self._cell(number, cell).items():
                found[table] += rows
            yield Measured(number + 1, len(every), cell)
        self._finish(found, probe)

    def _finish(self, found: dict[str, Rows], probe: dict[str, Any] | None) -> None:
        found["summary"] = summary(found["measures"])
        for table, schema in SCHEMAS.items():
            write_table(
                self.run.folder, table, {name: [row[name] for row in found[table]] for name in schema.names}, SCHEMAS
            )
        shutil.rmtree(self.run.folder / CELLS, ignore_errors=True)
        in_parts = in_part(self.subject.lm.tokenizer, self.cfg.words)
        told = {"words_in_part": in_parts, "probe": probe, "judge": self._judged_by(found)}
        self.run.finish(results(self.cfg, found["summary"], found["measures"]) | told)

    def _judged_by(self, found: dict[str, Rows]) -> dict[str, Any] | None:
        """Who rated the texts, and how many of them."""
        if self.cells.judge is None:
            return None
        n_empty = sum(not row["text"].strip() for row in found["texts"])
        return {
            "name": self.cells.judge.llm.name,
            "n_empty": n_empty,
            "n_unread": n_unrated(found["measures"]) - n_empty,
        }

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
