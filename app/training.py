"""The training job: harvested activations in, a checkpoint and its log out."""

import dataclasses
import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from activations.progress import Progress, no_progress
from activations.reader import Activations
from activations.shuffle import Shuffled
from sae import VARIANTS, SAEConfig, checkpoint
from sae.base import SAE
from sae.train import Step, TrainConfig, TrainingDiverged, train
from store.errors import UsageError
from store.files import whole_file
from store.run import Run, start_run

LOG_EVERY = 10


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


def train_sae(job: TrainJob, activations_run: Run, root: Path, progress: Progress = no_progress) -> Run:
    """Train into `root/sae/<hash>`, or return the run that is already there.

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
            _train_into(run, job, activations, progress)
        return run


def _train_into(run: Run, job: TrainJob, activations: Activations, progress: Progress) -> None:
    rows = activations.rows("train", job.classes)
    sae = VARIANTS[job.variant](job.sae)
    label = f"train {job.variant} on {len(rows):,} rows"
    started = perf_counter()
    with closing(rows.shuffled(job.batch_size, job.seed)) as batches:
        steps = progress(train(sae, batches, job.train), job.train.n_steps, label)
        try:
            log = [_line(step, batches) for step in steps if _is_logged(step, job.train.n_steps)]
        except TrainingDiverged as error:
            raise UsageError(f"{error}: lower --lr, or check the activations with `monosem show`") from error
    with whole_file(run.folder / "log.jsonl") as scratch:
        scratch.write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    checkpoint.save(run.folder, sae, {"run": run.id, "hook_point": job.hook_point})
    reading = {
        "reader_wait_share": batches.wait_s / (perf_counter() - started),
        "batch_entropy": sum(line["batch_entropy"] for line in log) / len(log),
        "distinct_sequences": sum(line["distinct_sequences"] for line in log) / len(log),
    }
    run.finish({**_results(sae, log[-1], len(rows)), **reading})


def _is_logged(step: Step, last: int) -> bool:
    """Every tenth step and the last one."""
    return step.step % LOG_EVERY == 0 or step.step == last


def _line(step: Step, batches: Shuffled) -> dict[str, Any]:
    """A step's numbers, and how well the newest batch mixes the text."""
    found = batches.mixing
    return {**step.numbers(), "distinct_sequences": found.n_distinct, "batch_entropy": found.entropy}


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
