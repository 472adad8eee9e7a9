"""`monosem evaluate SAE…`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from app.arguments import RootArgs, parse, unchecked
from app.evaluation.job import PartRequest, check_names, compare_dictionaries, evaluate_dictionary, requests
from app.evaluation.parts import ACROSS, TABLE
from app.log import progress
from app.report.job import write_report
from app.summary import print_parts
from store.errors import UsageError
from store.run import Run, find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Measure sparse autoencoders on held-out documents, and write a report with every figure, interval and control.

    Each part on each dictionary is kept as a run of its own: an evaluation that was killed goes on with the parts that
    are missing. Several dictionaries are put side by side in one report.

    Example: monosem evaluate latest --quick
    """

    saes: tyro.conf.Positional[tuple[str, ...]] = ("latest",)
    """Dictionaries: ids, starts of ids, folders, or `latest`."""
    only: tuple[str, ...] = ()
    """Parts to measure; by default all."""
    skip: tuple[str, ...] = ()
    """Parts to leave out."""
    quick: bool = False
    """Less of everything: a minute or two on a small model. Settings given for a part count over it."""
    activations: str | None = None
    """The harvest; by default the one each dictionary was trained on."""


def main(arguments: Sequence[str]) -> None:
    """Parse, evaluate, report."""
    quick = "--quick" in arguments and "--no-quick" not in arguments
    args: Any = parse(_args(quick), "evaluate", arguments, prefixed=True)
    check_names([*args.only, *args.skip])
    asked = [r for r in requests(args.only, quick=quick, given=_given(args)) if r.part not in args.skip]
    # all that can be misspelt is looked up before anything is measured; the same dictionary named twice counts once
    named = list({run.id: run for run in (find_run(args.root, saes, "sae") for saes in args.saes)}.values())
    harvests = [find_run(args.root, args.activations or _harvest_of(run), "activations") for run in named]
    _check_asked(asked, args.only, len(named))
    evaluated = [
        evaluate_dictionary(asked, run, harvest, args.root, progress)
        for run, harvest in zip(named, harvests, strict=True)
    ]
    compared = compare_dictionaries(asked, evaluated, args.root, progress)
    for one in evaluated:
        print_parts(f"sae {one.sae_run.id} on activations {one.activations_run.id}", one)
    if compared.runs or compared.failed:
        print_parts("all of them, pair by pair", compared)
    print(f"report: {write_report(evaluated, args.root, compared)}")
    if failed := sorted({part for one in (*evaluated, compared) for part in one.failed}):
        raise UsageError(f"not measured: {', '.join(failed)} (why is said above); all other parts are kept")


def _check_asked(asked: Sequence[PartRequest], only: Sequence[str], n_dictionaries: int) -> None:
    if not asked:
        raise UsageError("nothing is left to measure: name parts with --only that --skip does not take away again")
    if n_dictionaries == 1 and (alone := sorted(set(only) & set(ACROSS))):
        raise UsageError(f"'{alone[0]}' compares dictionaries, but one is named: name two or more")


def _harvest_of(sae_run: Run) -> str:
    if "activations" not in sae_run.inputs:
        raise UsageError(f"SAE {sae_run.id} does not say what it was trained on: name a harvest with --activations")
    return sae_run.inputs["activations"]


def _given(args: Any) -> dict[str, dict[str, Any]]:
    """Each part's settings as they were asked for, presets where nothing was said."""
    return {
        name: {field.name: getattr(getattr(args, name), field.name) for field in dataclasses.fields(part.config)}
        for name, part in TABLE.items()
    }


def _args(quick: bool) -> type:
    """`Args` with each part's settings, as `--PART.SETTING`, by default those of the preset."""
    fields: list[Any] = []
    for name, part in TABLE.items():
        preset = part.config.quick() if quick else part.config()
        values = {field.name: getattr(preset, field.name) for field in dataclasses.fields(preset)}
        twin = unchecked(part.config, **values)
        fields.append((name, twin, dataclasses.field(default_factory=twin)))
    namespace = {"__doc__": Args.__doc__}
    return dataclasses.make_dataclass("Args", fields, bases=(Args,), namespace=namespace, frozen=True, kw_only=True)
