"""The evaluation job: every part of every dictionary is a run of its own, so that what is finished is never lost."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activations.progress import Progress, no_progress
from app.evaluation.evaluated import NOT_APPLICABLE, Evaluated
from app.evaluation.parts import PARTS
from app.evaluation.subject import NotApplicable, Subject
from store.errors import UsageError
from store.figures import Measured, find, write_measured
from store.run import Run, start_run

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PartRequest:
    """One part in one setting: what makes two runs of it the same, with the dictionary and the harvest."""

    part: str
    """A name in `PARTS`."""
    settings: Any
    """The part's own config."""


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
    if unknown := sorted(set(only) - set(PARTS)):
        raise UsageError(f"no part '{unknown[0]}' in an evaluation: choose of {', '.join(PARTS)}")
    wanted = [name for name in PARTS if not only or name in only]
    return [PartRequest(part=name, settings=_settings(name, quick, (given or {}).get(name, {}))) for name in wanted]


def _settings(part: str, quick: bool, given: Mapping[str, Any]) -> Any:
    preset = PARTS[part].config.quick() if quick else PARTS[part].config()
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
    with start_run(root, "evaluation", request, inputs) as run:
        if not run.finished:
            try:
                measured = part.measure(request.settings, subject, progress)
            except NotApplicable as reason:
                run.finish({"part": request.part, NOT_APPLICABLE: str(reason)})
                return run
            write_measured(run.folder, measured)
            run.finish({"part": request.part, "n_figures": len(measured.figures), **_headline(request.part, measured)})
        return run


def _headline(part: str, measured: Measured) -> dict[str, float | None]:
    found = {name: find(measured.figures, **where) for name, where in PARTS[part].headline.items()}
    return {name: figure.value for name, figure in found.items() if figure}


def evaluate_dictionary(
    asked: Sequence[PartRequest], sae_run: Run, activations_run: Run, root: Path, progress: Progress = no_progress
) -> Evaluated:
    """All parts that are asked for; one that cannot be measured does not keep the others from it.

    Raises:
        UsageError: the dictionary does not fit the harvest.
    """
    subject = Subject(sae_run, activations_run)
    evaluated = Evaluated(sae_run, activations_run, {}, {})
    for request in asked:
        try:
            evaluated.runs[request.part] = evaluate_part(request, subject, root, progress)
        except UsageError as error:
            log.warning("%s was not measured: %s", request.part, error)
            evaluated.failed[request.part] = str(error)
    return evaluated
