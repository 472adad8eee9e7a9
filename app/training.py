"""The training job: harvested activations in, a checkpoint and its log out."""

import dataclasses
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from activations.joined import JoinedActivations
from activations.progress import Progress, no_progress
from activations.reader import Activations, RowSet
from activations.shuffle import Shuffled, ShuffleState
from app.loggers import open_loggers
from app.training_loop import DEFAULT_TRAIL, Loop, Trail
from app.trainings import CHECKPOINTS
from autointerp.pairing import model_of
from sae import VARIANTS, SAEConfig, checkpoint
from sae.base import SAE
from sae.encoder import EncoderSAE
from sae.metrics import evaluate
from sae.train import TrainConfig
from store.errors import UsageError
from store.run import Run, start_run


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What to train, on which rows."""

    variant: str
    """A name in `sae.VARIANTS`."""
    sae: SAEConfig
    train: TrainConfig
    hook_point: str
    """Which of the harvest's hook points: what is read."""
    other_hook_points: tuple[str, ...] = ()
    """A transcoder's target, or a crosscoder's other sites."""
    classes: tuple[str, ...] = ("normal",)
    """Token classes trained on; first positions are always left out."""
    batch_size: int = 2048
    """Rows per step."""
    seed: int = 0
    """Order of the rows."""


def open_activations(runs: Sequence[Run], hook_points: Sequence[str]) -> Activations | JoinedActivations:
    """One hook point, or several side by side: of one harvest, or one of each.

    Raises:
        UsageError: a harvest has no such hook point or the numbers do not fit, or the harvests are of other tokens.
    """
    if len(runs) == 1 and len(hook_points) < 2:
        return Activations(runs[0], hook_points[0] if hook_points else None)
    if len(runs) > 1 and len(hook_points) == 1:
        hook_points = [*hook_points] * len(runs)
    if len(runs) > 1 and len(hook_points) != len(runs):
        raise UsageError(
            f"{len(runs)} harvests and {len(hook_points)} hook points: name one for each harvest, or one for all"
        )
    harvests = list(runs) if len(runs) > 1 else [*runs] * len(hook_points)
    return JoinedActivations([Activations(run, name) for run, name in zip(harvests, hook_points, strict=True)])


def train_sae(
    job: TrainJob,
    activations_runs: Run | Sequence[Run],
    root: Path,
    progress: Progress = no_progress,
    trail: Trail = DEFAULT_TRAIL,
) -> Run:
    """Train into `root/sae/<hash>`, or return the run that is already there; one that was killed goes on.

    Raises:
        UsageError: the SAE reads another width than the harvest has, no row matches, or the loss diverged.
    """
    runs = [activations_runs] if isinstance(activations_runs, Run) else list(activations_runs)
    activations = open_activations(runs, (job.hook_point, *job.other_hook_points))
    _check_widths(job, activations.widths, runs)
    with start_run(root, "sae", job, _inputs(runs)) as run:
        if not run.finished:
            _train_into(run, job, activations, progress, trail)
        # a run that was killed after it was finished may still have them
        shutil.rmtree(run.folder / CHECKPOINTS, ignore_errors=True)
        return run


def _check_widths(job: TrainJob, widths: Sequence[int], runs: Sequence[Run]) -> None:
    try:
        found = type(job.sae).of_widths(widths)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for name, width in found.items():
        if getattr(job.sae, name) != width:
            places = ", ".join((job.hook_point, *job.other_hook_points))
            harvests = ", ".join(run.id for run in runs)
            raise UsageError(
                f"{name}={getattr(job.sae, name)}, but {places} of harvest {harvests} has {width}: leave {name} out"
            )


def _inputs(runs: Sequence[Run]) -> dict[str, str]:
    """The harvests by kind; those after the first are numbered."""
    return {f"activations{f'_{n}' if n else ''}": run.id for n, run in enumerate(runs)}


def _train_into(
    run: Run, job: TrainJob, activations: Activations | JoinedActivations, progress: Progress, trail: Trail
) -> None:
    rows = activations.rows("train", job.classes)
    sae = VARIANTS[job.variant](job.sae)
    assert isinstance(sae, EncoderSAE)
    started = perf_counter()

    def reader(state: ShuffleState | None) -> Shuffled:
        return rows.shuffled(job.batch_size, job.seed, state=state)

    told = {"run": run.id, "hook_point": job.hook_point, "other_hook_points": list(job.other_hook_points)}
    label = f"train {job.variant} on {len(rows):,} rows"
    with ExitStack() as stack:
        loggers = [
            stack.enter_context(closing(logger)) for logger in open_loggers(trail.log_to, run.root, run.id, run.config)
        ]
        loop = Loop(run.folder, job.train, progress, trail, loggers, told)
        log, batches = loop.run(sae, reader, sae.parts, label)
    checkpoint.save(run.folder, sae, told)
    reading = {
        "reader_wait_share": batches.wait_s / (perf_counter() - started),
        "batch_entropy": sum(line["batch_entropy"] for line in log) / len(log),
        "distinct_sequences": sum(line["distinct_sequences"] for line in log) / len(log),
    }
    measured = heldout(sae, activations.rows("heldout", job.classes))
    run.finish({**_results(sae, log[-1], len(rows)), **reading, **measured, **model_of(activations)})


def heldout(sae: SAE, rows: RowSet) -> dict[str, Any]:
    """What held-out rows of the classes trained on say: of every variant, those that read several hook points too."""
    found = evaluate(sae, (sae.parts(x) for x in rows.in_order()))
    told = ("n_rows", "fvu", "l0", "bits_per_row")
    return {f"heldout_{name}": getattr(found, name) for name in told if getattr(found, name) is not None}


def _results(sae: SAE, last: dict[str, Any], n_rows: int) -> dict[str, Any]:
    return {
        "d_sae": sae.cfg.d_sae,
        "n_rows": n_rows,
        "n_steps": last["step"],
        "n_tokens": last["n_tokens"],
        "passes": last["n_tokens"] / n_rows,
        "train_fvu_last_batch": last["fvu"],
        "n_parameters": sum(parameter.numel() for parameter in sae.parameters()),
    }


def variant_config(variant: str, widths: Sequence[int], settings: dict[str, Any]) -> SAEConfig:
    """The config of a variant, its widths taken from the activations.

    Raises:
        UsageError: unknown variant, or settings it does not allow (such as k > d_sae).
    """
    if variant not in VARIANTS:
        raise UsageError(f"no SAE variant '{variant}': choose one of {', '.join(VARIANTS)}")
    config_cls = VARIANTS[variant].config_cls
    known = {f.name for f in dataclasses.fields(config_cls)}
    try:
        given = {key: value for key, value in settings.items() if key in known}
        return config_cls(**given | config_cls.of_widths(widths))
    except ValueError as error:
        raise UsageError(str(error)) from error
