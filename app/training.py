"""The training job: harvested activations in, a checkpoint and its log out."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from activations.progress import Progress, no_progress
from activations.reader import Activations
from activations.shuffle import Shuffled, ShuffleState
from app.training_loop import CHECKPOINTS, DEFAULT_TRAIL, Trail, run_training
from sae import VARIANTS, SAEConfig, checkpoint
from sae.base import SAE
from sae.encoder import EncoderSAE
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
    """Which of the harvest's hook points."""
    classes: tuple[str, ...] = ("normal",)
    """Token classes trained on; first positions are always left out."""
    batch_size: int = 2048
    """Rows per step."""
    seed: int = 0
    """Order of the rows."""


def train_sae(
    job: TrainJob,
    activations_run: Run,
    root: Path,
    progress: Progress = no_progress,
    trail: Trail = DEFAULT_TRAIL,
) -> Run:
    """Train into `root/sae/<hash>`, or return the run that is already there; one that was killed goes on.

    Raises:
        UsageError: the SAE reads another width than the harvest has, no row matches, or the loss diverged.
    """
    activations = Activations(activations_run, job.hook_point)
    if job.sae.d_in != activations.d_in:
        raise UsageError(
            f"d_in={job.sae.d_in}, but {job.hook_point} of harvest {activations_run.id} has {activations.d_in}: "
            "leave d_in out"
        )
    with start_run(root, "sae", job, {"activations": activations_run.id}) as run:
        if not run.finished:
            _train_into(run, job, activations, progress, trail)
        return run


def _train_into(run: Run, job: TrainJob, activations: Activations, progress: Progress, trail: Trail) -> None:
    rows = activations.rows("train", job.classes)
    sae = VARIANTS[job.variant](job.sae)
    assert isinstance(sae, EncoderSAE)
    started = perf_counter()

    def reader(state: ShuffleState | None) -> Shuffled:
        return rows.shuffled(job.batch_size, job.seed, state=state)

    log, batches = run_training(run.folder, sae, job.train, reader, lambda x: x, progress, trail)
    checkpoint.save(run.folder, sae, {"run": run.id, "hook_point": job.hook_point})
    reading = {
        "reader_wait_share": batches.wait_s / (perf_counter() - started),
        "batch_entropy": sum(line["batch_entropy"] for line in log) / len(log),
        "distinct_sequences": sum(line["distinct_sequences"] for line in log) / len(log),
    }
    run.finish({**_results(sae, log[-1], len(rows)), **reading})
    shutil.rmtree(run.folder / CHECKPOINTS, ignore_errors=True)


def _results(sae: SAE, last: dict[str, Any], n_rows: int) -> dict[str, Any]:
    return {
        "n_rows": n_rows,
        "n_steps": last["step"],
        "n_tokens": last["n_tokens"],
        "passes": last["n_tokens"] / n_rows,
        "train_fvu_last_batch": last["fvu"],
        "n_parameters": sum(parameter.numel() for parameter in sae.parameters()),
    }


def variant_config(variant: str, d_in: int, settings: dict[str, Any]) -> SAEConfig:
    """The config of a variant, its width taken from the activations.

    Raises:
        UsageError: unknown variant, or settings it does not allow (such as k > d_sae).
    """
    if variant not in VARIANTS:
        raise UsageError(f"no SAE variant '{variant}': choose one of {', '.join(VARIANTS)}")
    config_cls = VARIANTS[variant].config_cls
    known = {f.name for f in dataclasses.fields(config_cls)}
    try:
        return config_cls(**{key: value for key, value in settings.items() if key in known} | {"d_in": d_in})
    except ValueError as error:
        raise UsageError(str(error)) from error
