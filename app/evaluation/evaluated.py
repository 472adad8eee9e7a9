"""What has been measured of a dictionary, read back: no model and no tensor is needed for it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from store.errors import UsageError
from store.figures import Measured, read_measured
from store.run import Run, find_run, list_runs

NOT_APPLICABLE = "not_applicable"
"""In the results of a part that has nothing to say of a dictionary: why."""


@dataclass(frozen=True)
class Parts:
    """What was measured, by part."""

    runs: dict[str, Run] = field(default_factory=dict)
    """Those that were measured or do not apply."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why a part could not be measured this time."""

    def measured(self, part: str) -> Measured:
        """Its figures and curves; none where it does not apply, failed or was not asked for."""
        run = self.runs.get(part)
        return Measured() if run is None or NOT_APPLICABLE in run.results else read_measured(run)

    def not_applicable(self, part: str) -> str | None:
        """Why a part does not apply, if it does not."""
        return self.runs[part].results.get(NOT_APPLICABLE) if part in self.runs else None


@dataclass(frozen=True, kw_only=True)
class Evaluated(Parts):
    """One dictionary with what was measured of it."""

    sae_run: Run
    activations_run: Run


@dataclass(frozen=True, kw_only=True)
class Compared(Parts):
    """What was measured of several dictionaries against each other."""


def evaluations_of(root: Path, sae_run: Run) -> list[Evaluated]:
    """Everything measured of a dictionary, one entry a harvest it was measured on, that of the newest run last."""
    return evaluations_among(list_runs(root, "evaluation"), root, sae_run)


def evaluations_among(runs: Iterable[Run], root: Path, sae_run: Run) -> list[Evaluated]:
    """As `evaluations_of`, among evaluations that were looked up already, oldest first."""
    return _by_harvest(root, sae_run, [run for run in runs if run.inputs.get("sae") == sae_run.id])


def all_evaluations(root: Path) -> dict[str, list[Evaluated]]:
    """The same of every dictionary under `root`, by its id; each manifest is read once."""
    saes = {run.id: run for run in list_runs(root, "sae")}
    by_sae: dict[str, list[Run]] = {id_: [] for id_ in saes}
    for run in list_runs(root, "evaluation"):
        by_sae.get(run.inputs.get("sae", ""), []).append(run)
    harvests = {run.id: run for run in list_runs(root, "activations")}
    return {id_: _by_harvest(root, saes[id_], runs, harvests) for id_, runs in by_sae.items()}


def _by_harvest(
    root: Path, sae_run: Run, runs: Iterable[Run], harvests: Mapping[str, Run] | None = None
) -> list[Evaluated]:
    found: dict[str, Evaluated] = {}
    for run in runs:
        if "part" not in run.config:
            continue
        harvest = run.inputs["activations"]
        # taken out and put back: the harvest of the newest run goes last
        evaluated = found.pop(harvest, None) or _none_yet(root, sae_run, harvest, harvests)
        if evaluated is not None:
            evaluated.runs[run.config["part"]] = run
            found[harvest] = evaluated
    return list(found.values())


def _none_yet(root: Path, sae_run: Run, harvest: str, harvests: Mapping[str, Run] | None) -> Evaluated | None:
    if harvests is not None:
        known = harvests.get(harvest)
        return None if known is None else Evaluated(sae_run=sae_run, activations_run=known)
    try:
        return Evaluated(sae_run=sae_run, activations_run=find_run(root, harvest, "activations"))
    except UsageError:
        return None  # the harvest was deleted, so there is nothing to name beside the figures
