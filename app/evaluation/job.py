"""The evaluation job: every part of every dictionary is a run of its own, so that what is finished is never lost."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activations.progress import Progress, no_progress
from app.evaluation.evaluated import NOT_APPLICABLE, Compared, Evaluated
from app.evaluation.parts import ACROSS, PARTS, TABLE
from app.evaluation.subject import NotApplicable, Subject
from store.errors import Busy, DiskFull, UsageError
from store.figures import Measured, find, write_measured
from store.hashing import sha256_file
from store.run import Run, start_run

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PartRequest:
    """One part in one setting: what makes two runs of it the same, with the dictionary and the harvest."""

    part: str
    """A name in `parts.TABLE`."""
    settings: Any
    """The part's own config."""
    version: int = 1
    """Of the part's definitions."""


def requests(
    only: Sequence[str] = (), *, quick: bool = False, given: Mapping[str, Mapping[str, Any]] | None = None
) -> list[PartRequest]:
    """The parts that are asked for, in the order of the table.

    Args:
        only: names of parts; all where it is empty.
        quick: in their quick presets.
        given: settings by part and name that count over the preset.

    Raises:
        UsageError: there is no such part, or a part does not allow a setting.
    """
    check_names(only)
    wanted = [name for name in TABLE if not only or name in only]
    return [
        PartRequest(
            part=name, settings=_settings(name, quick, (given or {}).get(name, {})), version=TABLE[name].version
        )
        for name in wanted
    ]


def check_names(names: Iterable[str]) -> None:
    """Raise a UsageError unless all are names of parts."""
    if unknown := sorted(set(names) - set(TABLE)):
        raise UsageError(f"no part '{unknown[0]}' in an evaluation: choose of {', '.join(TABLE)}")


def _settings(part: str, quick: bool, given: Mapping[str, Any]) -> Any:
    preset = TABLE[part].config.quick() if quick else TABLE[part].config()
    try:
        return dataclasses.replace(preset, **given)
    except ValueError as error:
        raise UsageError(str(error)) from error


def evaluate_part(request: PartRequest, subject: Subject, root: Path, progress: Progress = no_progress) -> Run:
    """Measure one part into `root/evaluation/<hash>`, or return what is already there.

    Raises:
        UsageError: it cannot be measured here, for want of a text, say. What has been measured stays.
    """
    inputs = {"sae": subject.sae_run.id, "activations": subject.activations_run.id}
    part = PARTS[request.part]
    return _run("evaluation", request, inputs, root, lambda: part.measure(request.settings, subject, progress))


def compare_part(
    request: PartRequest, subjects: Sequence[Subject], root: Path, progress: Progress = no_progress
) -> Run:
    """Measure dictionaries against each other into `root/comparison/<hash>`, or return what is already there.

    Raises:
        UsageError: as `evaluate_part`.
    """
    part = ACROSS[request.part]
    inputs = {}
    for number, subject in enumerate(subjects):
        inputs |= {f"sae {number}": subject.sae_run.id, f"activations {number}": subject.activations_run.id}
    return _run("comparison", request, inputs, root, lambda: part.measure(request.settings, subjects, progress))


def _run(
    kind: str, request: PartRequest, inputs: Mapping[str, str], root: Path, measure: Callable[[], Measured]
) -> Run:
    with start_run(root, kind, request, {**inputs, **_files(request.settings)}) as run:
        if not run.finished:
            try:
                measured = measure()
            except NotApplicable as reason:
                run.finish({"part": request.part, NOT_APPLICABLE: str(reason)})
                return run
            write_measured(run.folder, measured)
            run.finish({"part": request.part, "n_figures": len(measured.figures), **_headline(request.part, measured)})
        return run


def _files(settings: Any) -> dict[str, str]:
    """Hashes of the files that settings name: a part is made again when one of them changes."""
    values = (getattr(settings, field.name) for field in dataclasses.fields(settings))
    names = [name for value in values for name in (value if isinstance(value, tuple) else (value,))]
    paths = {name: Path(name).expanduser() for name in names if isinstance(name, str)}
    return {f"file {name}": sha256_file(path)[:16] for name, path in paths.items() if path.is_file()}


def _headline(part: str, measured: Measured) -> dict[str, float | None]:
    found = {name: find(measured.figures, **where) for name, where in TABLE[part].headline.items()}
    return {name: figure.value for name, figure in found.items() if figure}


def evaluate_dictionary(
    asked: Sequence[PartRequest], sae_run: Run, activations_run: Run, root: Path, progress: Progress = no_progress
) -> Evaluated:
    """All parts that are asked for; one that cannot be measured does not keep the others from it.

    Raises:
        Busy: another process is measuring one of them.
        UsageError: the dictionary does not fit the harvest, or the disk is full.
    """
    subject = Subject(sae_run, activations_run)
    runs, failed = _each([r for r in asked if r.part in PARTS], lambda r: evaluate_part(r, subject, root, progress))
    return Evaluated(sae_run=sae_run, activations_run=activations_run, runs=runs, failed=failed)


def compare_dictionaries(
    asked: Sequence[PartRequest], evaluated: Sequence[Evaluated], root: Path, progress: Progress = no_progress
) -> Compared:
    """All parts across dictionaries that are asked for; none of fewer than two dictionaries."""
    across = [request for request in asked if request.part in ACROSS and len(evaluated) > 1]
    subjects = [Subject(one.sae_run, one.activations_run) for one in evaluated] if across else []
    runs, failed = _each(across, lambda r: compare_part(r, subjects, root, progress))
    return Compared(runs=runs, failed=failed)


def _each(asked: Sequence[PartRequest], measure: Callable[[PartRequest], Run]) -> tuple[dict[str, Run], dict[str, str]]:
    """The runs by part, and of those that could not be measured, why."""
    runs, failed = {}, {}
    for request in asked:
        try:
            runs[request.part] = measure(request)
        except (Busy, DiskFull):
            raise  # no other part would fare better, and whoever holds this one is about to ask for the next
        except UsageError as error:
            log.warning("%s was not measured: %s", request.part, error)
            failed[request.part] = str(error)
    return runs, failed
