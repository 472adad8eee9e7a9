"""`monosem evaluate SAE…`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from app.arguments import RootArgs, parse, unchecked
from app.evaluation.evaluated import Evaluated
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
    args: Any = parse(_args(), "evaluate", arguments, prefixed=True)
    check_names([*args.only, *args.skip])
    asked = [r for r in requests(args.only, quick=args.quick, given=_given(args)) if r.part not in args.skip]
    if len(args.saes) == 1 and (alone := sorted(set(args.only) & set(ACROSS))):
        raise UsageError(f"'{alone[0]}' compares dictionaries, but one is named: name two or more")
    evaluated = [_evaluate(asked, reference, args) for reference in args.saes]
    compared = compare_dictionaries(asked, evaluated, args.root, progress)
    for one in evaluated:
        print_parts(f"sae {one.sae_run.id} on activations {one.activations_run.id}", one)
    if compared.runs or compared.failed:
        print_parts("all of them, pair by pair", compared)
    print(f"report: {write_report(evaluated, args.root, compared)}")
    if failed := sorted({part for one in (*evaluated, compared) for part in one.failed}):
        raise UsageError(f"not measured: {', '.join(failed)} (why is said above); all other parts are kept")


def _evaluate(asked: Sequence[PartRequest], reference: str, args: Any) -> Evaluated:
    sae_run = find_run(args.root, reference, "sae")
    activations_run = find_run(args.root, args.activations or _harvest_of(sae_run), "activations")
    return evaluate_dictionary(asked, sae_run, activations_run, args.root, progress)


def _harvest_of(sae_run: Run) -> str:
    if "activations" not in sae_run.inputs:
        raise UsageError(f"SAE {sae_run.id} does not say what it was trained on: name a harvest with --activations")
    return sae_run.inputs["activations"]


def _given(args: Any) -> dict[str, dict[str, Any]]:
    """Parts' settings that were given: those that differ from the defaults."""
    found = {}
    for name, part in TABLE.items():
        asked, default = getattr(args, name), part.config()
        values = {field.name: getattr(asked, field.name) for field in dataclasses.fields(default)}
        found[name] = {key: value for key, value in values.items() if value != getattr(default, key)}
    return found


def _args() -> type:
    """`Args` with each part's settings, as `--PART.SETTING`."""
    twins = {name: unchecked(part.config) for name, part in TABLE.items()}
    fields: list[Any] = [(name, twin, dataclasses.field(default_factory=twin)) for name, twin in twins.items()]
    namespace = {"__doc__": Args.__doc__}
    return dataclasses.make_dataclass("Args", fields, bases=(Args,), namespace=namespace, frozen=True, kw_only=True)
