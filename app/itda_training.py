"""The job that builds an ITDA: harvested activations in text order in, a checkpoint, its log and its control out."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from activations.progress import Progress, no_progress
from activations.reader import Activations, RowSet
from activations.text_order import in_text_order
from autointerp.pairing import model_of
from sae import checkpoint
from sae.itda import ITDA, Provenance
from sae.itda_build import BuildConfig, Builder, BuildStep, Labelled, build_random
from sae.metrics import StreamingFVU, StreamingMean
from store.errors import UsageError
from store.files import whole_file
from store.run import Run, start_run


@dataclass(frozen=True, kw_only=True)
class ItdaJob:
    """What to build, from which rows."""

    build: BuildConfig
    hook_point: str
    """Which of the harvest's hook points."""
    variant: str = "itda"
    """Its name in `sae.VARIANTS`."""
    classes: tuple[str, ...] = ("normal",)
    """Token classes built from; first positions are always left out. Sinks are told by their norm, so dictionaries of
    different hook points or models see the same tokens, and can be compared, only if all classes are named."""
    batch_size: int = 512
    """Rows judged at once."""
    n_tokens: int | None = None
    """Rows shown, from the start of the text; None for all of the training split."""
    n_heldout: int = 16_384
    """Held-out rows, from the start of the text, on which dictionary and control are measured."""
    seed: int = 0
    """Of the control's draw; the dictionary itself has no randomness."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_tokens", "n_heldout"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is not a count: choose {name} >= 1")


def recorded_job(run: Run) -> ItdaJob:
    """What an ITDA was built with."""
    settings = run.config
    made = {"build": BuildConfig(**settings["build"]), "classes": tuple(settings["classes"])}
    return ItdaJob(**{**settings, **made})


def train_itda(job: ItdaJob, activations_run: Run, root: Path, progress: Progress = no_progress) -> Run:
    """Build into `root/sae/<hash>`, or return the run that is already there.

    Rows come by sequence and position, as the text has them, and not in the harvest's shuffled order: which tokens
    become atoms then depends on the text and the batch size alone.

    Raises:
        UsageError: no row matches.
    """
    activations = Activations(activations_run, job.hook_point)
    with start_run(root, "sae", job, {"activations": activations_run.id}) as run:
        if not run.finished:
            _build_into(run, job, activations, progress)
        return run


def _build_into(run: Run, job: ItdaJob, activations: Activations, progress: Progress) -> None:
    rows, heldout = (activations.rows(split, job.classes) for split in ("train", "heldout"))
    mean = torch.tensor(activations.moments("train", job.classes).mean).float() if job.build.centre else None
    builder = Builder(job.build, mean)
    total = min(len(rows), job.n_tokens or len(rows))
    steps = progress(builder.grow(labelled(rows, job)), total, f"build itda from {total:,} rows", weigh=_n_rows)
    log = [step._asdict() for step in steps]
    try:
        itda = builder.itda()
    except ValueError as error:
        raise UsageError(f"{error}: choose other token classes, or harvest more text") from error
    random = build_random(labelled(rows, job), itda, torch.Generator().manual_seed(job.seed))
    batches = (batch.x for batch in in_text_order(heldout, job.batch_size, job.n_heldout))
    shown = progress(batches, min(len(heldout), job.n_heldout), "measure it on held-out rows", weigh=len)
    found = measure({"itda": itda, "random": random}, shown)
    with whole_file(run.folder / "log.jsonl") as scratch:
        scratch.write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    checkpoint.save(run.folder, itda, {"run": run.id, "hook_point": job.hook_point})
    run.finish({**_results(itda, log, found), **model_of(activations)})


def labelled(rows: RowSet, job: ItdaJob) -> Iterator[Labelled]:
    """The job's rows in text order, as the builder reads them."""
    for x, columns in in_text_order(rows, job.batch_size, job.n_tokens):
        names = ("seq", "pos", "doc_id", "token_id")
        yield x, Provenance(*(torch.from_numpy(columns[name]).long() for name in names))


def measure(dictionaries: Mapping[str, ITDA], batches: Iterable[Tensor]) -> dict[str, dict[str, float | int | None]]:
    """Rows, FVU and L0 of each dictionary over the same rows, in one pass."""
    fvu = {name: StreamingFVU() for name in dictionaries}
    l0 = {name: StreamingMean() for name in dictionaries}
    for x in batches:
        for name, itda in dictionaries.items():
            code = itda.pursue(x)
            fvu[name].update(x, code.decode(itda.W_dec) + itda.b_dec)
            l0[name].update((code.values != 0).sum(dim=1).float())
    return {
        name: {"n_rows": fvu[name].n_rows, "fvu": fvu[name].value(), "l0": l0[name].value()} for name in dictionaries
    }


def _n_rows(step: BuildStep) -> int:
    return step.n_rows


def _results(itda: ITDA, log: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "d_sae": itda.cfg.d_sae,
        "n_rows": log[-1]["n_tokens"],
        "n_tokens": itda.cfg.n_tokens,
        "n_steps": log[-1]["step"],
        "n_zero": sum(line["n_zero"] for line in log),
        "tau": itda.cfg.tau,
        "stream": itda.cfg.stream,
        "heldout_rows": found["itda"]["n_rows"],
        "heldout_fvu": found["itda"]["fvu"],
        "heldout_fvu_random_atoms": found["random"]["fvu"],
        "heldout_l0": found["itda"]["l0"],
        "heldout_l0_random_atoms": found["random"]["l0"],
    }
