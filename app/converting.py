"""The job that makes a run of a dictionary that was trained elsewhere: checked against a harvest, measured on it."""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors

from activations.joined import JoinedActivations
from activations.reader import Activations
from app.training import heldout, open_activations
from autointerp.pairing import model_of
from sae import SAE, SAEConfig, checkpoint
from sae.convert import Foreign
from store.errors import UsageError
from store.hashing import sha256_file
from store.run import Run, find_run, start_run

log = logging.getLogger(__name__)

ALIASES = {"gpt2-small": "gpt2"}
"""Other names of a model that TransformerLens knows."""


@dataclass(frozen=True, kw_only=True)
class ConvertJob:
    """What was converted, and where it belongs."""

    source: str
    """The folder, file or hub reference it was read from."""
    files: dict[str, str]
    """SHA-256 of the source's files, by name."""
    variant: str
    """A name in `sae.VARIANTS`."""
    sae: SAEConfig
    """Of its fields only those that the checkpoint tells mean anything: nothing was trained here."""
    hook_point: str
    """Which of the harvest's hook points: what is read."""
    other_hook_points: tuple[str, ...] = ()
    """A transcoder's target."""
    classes: tuple[str, ...] = ("normal",)
    """Token classes it is measured on; first positions are always left out."""
    origin: dict[str, Any]
    """What the checkpoint says of itself, and what was folded in."""


def convert_sae(
    foreign: Foreign,
    source: str,
    files: Path,
    activations_run: Run,
    root: Path,
    hook_points: Sequence[str] = (),
    classes: Sequence[str] = ("normal",),
    *,
    same_model: bool = False,
) -> Run:
    """Convert into `root/sae/<hash>`, or return the run that is already there: of the same tensors at the same place.

    Args:
        foreign: what was read.
        source: from where, as a person would write it.
        files: the local folder or file that was read.
        activations_run: the harvest that it is measured on, and will be evaluated and indexed with.
        root: the folder of all runs.
        hook_points: where it reads, and what a transcoder predicts; empty: as its checkpoint says.
        classes: token classes of the held-out rows it is measured on.
        same_model: whether the checkpoint's model is the harvest's, whatever they are called.

    Raises:
        UsageError: the checkpoint is of another model, place or width than the harvest.
    """
    if not same_model:
        check_model(foreign.model, activations_run, source)
    places = _places(foreign, hook_points, activations_run, source)
    activations = open_activations([activations_run], places)
    _check_widths(foreign.sae, activations, source)
    job = _job(foreign, source, files, places, classes)
    same = {**{name: getattr(job, name) for name in SAME}, "tensors": _fingerprint(foreign.sae)}
    with start_run(root, "sae", job, {"activations": activations_run.id}, same) as run:
        if not run.finished:
            _write_into(run, job, foreign, activations)
        return run


def _job(foreign: Foreign, source: str, files: Path, places: tuple[str, ...], classes: Sequence[str]) -> ConvertJob:
    return ConvertJob(
        source=source,
        files=_hashes(files),
        variant=checkpoint.variant_name(foreign.sae),
        sae=foreign.sae.cfg,
        hook_point=places[0],
        other_hook_points=places[1:],
        classes=tuple(classes),
        origin=foreign.origin,
    )


SAME = ("variant", "sae", "hook_point", "other_hook_points", "classes")
"""Fields in which two conversions agree that are the same; from where they were read is not among them."""


def check_model(model: str | None, activations_run: Run, source: str) -> None:
    """Refuse a dictionary of another model; one that does not say passes.

    Raises:
        UsageError: the names differ by more than what stands before them.
    """
    harvested = activations_run.config["harvest"]["model"]
    if model is not None and _bare(model) != _bare(harvested):
        raise UsageError(
            f"{source} is of model '{model}', harvest {activations_run.id} of '{harvested}': name a harvest of that "
            "model with --activations, or say --same-model where both names mean one model"
        )


def _bare(model: str) -> str:
    """A model's name without where it is from."""
    name = model.split(":")[-1].rstrip("/").split("/")[-1].lower()
    return ALIASES.get(name, name)


def _places(foreign: Foreign, asked: Sequence[str], activations_run: Run, source: str) -> tuple[str, ...]:
    """Where it reads, and what it predicts if that is another place."""
    if asked:
        return tuple(asked)
    maps = foreign.sae.cfg.width_out != foreign.sae.cfg.d_in or "d_out" in _fields(foreign.sae)
    said = (foreign.hook_point, foreign.hook_point_out) if maps else (foreign.hook_point,)
    known = activations_run.config["harvest"]["hook_points"]
    if None in said:
        what = "what it predicts" if maps and foreign.hook_point else "where it reads"
        raise UsageError(f"{source} does not say {what}: name it with --hook-points; there is {', '.join(known)}")
    places = tuple(str(place) for place in said)
    for place in places:
        if place not in known:
            raise UsageError(
                f"{source} says hook point '{place}', harvest {activations_run.id} has {', '.join(known)}: name a "
                "harvest that has it with --activations, or the same place by its name here with --hook-points"
            )
    return places


def _fields(sae: SAE) -> set[str]:
    return {field.name for field in dataclasses.fields(sae.cfg)}


def _check_widths(sae: SAE, activations: Activations | JoinedActivations, source: str) -> None:
    try:
        found = type(sae.cfg).of_widths(activations.widths)
    except ValueError as error:
        raise UsageError(f"{source}: {error} with --hook-points") from error
    for name, width in found.items():
        if getattr(sae.cfg, name) != width:
            raise UsageError(
                f"{source} has {name}={getattr(sae.cfg, name)}, but {', '.join(activations.hook_points)} is {width} "
                "wide: it is of another model or place; name its harvest with --activations"
            )


def _fingerprint(sae: SAE) -> str:
    tensors = {name: tensor.contiguous() for name, tensor in sae.state_dict().items()}
    return hashlib.sha256(save_tensors(tensors)).hexdigest()


def _hashes(source: Path) -> dict[str, str]:
    """Of a checkpoint's files, or of the one that it is."""
    paths = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    names = (path.relative_to(source).as_posix() if source.is_dir() else path.name for path in paths)
    return {name: sha256_file(path) for name, path in zip(names, paths, strict=True)}


def _write_into(run: Run, job: ConvertJob, foreign: Foreign, activations: Activations | JoinedActivations) -> None:
    sae = foreign.sae
    found = heldout(sae, activations.rows("heldout", job.classes))
    told = {"hook_point": job.hook_point, "other_hook_points": list(job.other_hook_points), "model": foreign.model}
    checkpoint.save(run.folder, sae, {"run": run.id, **told, "origin": job.origin})
    parameters = sum(parameter.numel() for parameter in sae.parameters())
    run.finish({"d_sae": sae.cfg.d_sae, "n_parameters": parameters, **found, **model_of(activations)})
    fvu = found.get("heldout_fvu")
    if fvu is not None and fvu >= 1:
        log.warning(
            "its reconstruction is worse than the mean of these rows (FVU %.3g): is it of this model and place?", fvu
        )


def of_run(run: Run) -> Foreign:
    """A run's dictionary with what its harvest tells, for another library.

    Raises:
        UsageError: the run's checkpoint cannot be read.
    """
    sae = checkpoint.load(run.folder)
    origin = dict(run.config.get("origin", {}))
    others = run.config.get("other_hook_points") or [None]
    model = None
    try:
        harvest = find_run(run.root, run.inputs["activations"], "activations").config["harvest"]
    except UsageError as error:
        log.warning("its harvest is not here, so that the model and its context are not told: %s", error)
    else:
        model = str(harvest["model"]).removeprefix("hub:")
        origin.setdefault("metadata", {"context_size": harvest["n_ctx"]})
    return Foreign(sae, origin, run.config["hook_point"], model, others[0])
