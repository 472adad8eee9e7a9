"""Runs as text: what it is, what made it, what it scored."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.log import printable
from store.figures import FIGURES_FILE
from store.run import Run, list_runs

if TYPE_CHECKING:
    from app.evaluation.evaluated import Parts

COUNTED = ("part", "n_figures")
"""Results of an evaluation that are not among its figures."""
SHOWN = 4
"""Figures in one line; a part is summed up by fewer."""
MEASURED = ("evaluation", "comparison")
"""Kinds of runs that have figures."""
LONG = 8
"""Lists longer than this are counted, not printed."""


def print_run(run: Run, *, full: bool = False) -> None:
    """Print a run: its identity and results; with `full` also its config, provenance and what was made from it."""
    print(f"{run.kind} {run.id}   {run.folder}")
    if run.reused:
        print("  was there already: nothing was done")
    if full:
        _section("made from", run.inputs)
        _section("config", run.config)
        _section("made by", {**run.manifest["made_by"], "at": run.manifest["finished_at"]})
    print(f"  took {run.manifest['seconds']} s")
    _section("results", run.results)
    if run.kind in MEASURED and FIGURES_FILE in run.manifest["files"]:
        query = f"from compared where run = '{run.id}'"
        print(f'  all figures: monosem sql "{query}" --over catalogue --root {shlex.quote(str(run.root))}')
    if full:
        for other in list_runs(run.root):
            if run.id in other.inputs.values():
                print(f"  used by: {other.kind} {other.id}  {headline(other)}".rstrip())


def print_parts(title: str, parts: "Parts") -> None:
    """Print what sums up each part of an evaluation, and why a part has nothing to say."""
    print(title)
    for run in parts.runs.values():
        reused = ", was there already" if run.reused else f", {run.manifest['seconds']} s"
        print(f"  {headline(run)}{reused}")
    for part, why in parts.failed.items():
        print(f"  {part}: not measured, {printable(why)}")


def print_runs(runs: Sequence[Run], root: Path) -> None:
    """Print one line a run, oldest first."""
    if not runs:
        print(f"no finished run in {root}: `monosem demo` makes some")
    for run in runs:
        print(f"{run.manifest['finished_at']}  {run.kind:<13} {run.id}  {headline(run)}")


def headline(run: Run) -> str:
    """The few words that tell one run of a kind from another."""
    config, results = run.config, run.results
    describe = {
        "activations": lambda: (
            f"{config['harvest']['model']} {_few(config['harvest']['hook_points'])}, "
            f"{results['n_tokens']:,} tokens of {results['n_documents']:,} documents"
        ),
        "sae": lambda: f"{config['variant']} d_sae={results['d_sae']} at {config['hook_point']}",
        "evaluation": lambda: _evaluation_headline(results),
        "comparison": lambda: _evaluation_headline(results),
        "report": lambda: f"{_counted(results['n_dictionaries'], 'dictionary', 'dictionaries')} in {results['file']}",
        "index": lambda: (
            f"{results['n_alive']:,} of {results['n_latents']:,} latents alive, {results['n_events']:,} events"
        ),
        "plane": lambda: f"{results['n_latents']:,} latents by {config['method']}, seed {config['seed']}",
        "matching": lambda: _matching_headline(results),
        "alignment": lambda: (
            f"{config['by']}, {_counted(results['n_alignments'], 'alignment', 'alignments')}, "
            f"{results['n_matched']:,} pairs above chance"
        ),
        "sheet": lambda: f"{results['n']} explanations to rate, {results['n_null']} of them of another latent",
        "text": lambda: (
            f"{config['model']} {config['hook_point']}, {results['n_tokens']:,} tokens imported from {config['format']}"
        ),
        "explanations": lambda: f"{results['n_explained']} latents explained by {config['explainer']}",
        "random_explanations": lambda: f"{results['n_explained']} random directions explained by {config['explainer']}",
        "scores": lambda: (
            f"{config['scorer']} {number(results['explanation']['mean'])}, "
            f"shuffled {number(results['shuffled']['mean'])}"
        ),
    }
    return describe[run.kind]() if run.kind in describe else ""


def _evaluation_headline(results: Mapping[str, Any]) -> str:
    """A part's name and what sums it up."""
    part = results.get("part", "of an earlier version")
    if "not_applicable" in results:
        return printable(f"{part} does not apply: {results['not_applicable']}")
    figures = {key: value for key, value in results.items() if key not in COUNTED and _is_figure(value)}
    told = [f"{key.replace('_', ' ')} {number(value)}" for key, value in figures.items()]
    return f"{part}: {', '.join(told[:SHOWN]) or _counted(results.get('n_figures', 0), 'figure', 'figures')}"


def _matching_headline(results: Mapping[str, Any]) -> str:
    """How many pairs are above chance, by cosine where there is one."""
    measure = "decoder" if "decoder" in results["measures"] else "correlation"
    one = results["measures"][measure]
    n_families = sum(results["n_families"].values())
    return (
        f"{number(one['n_matched'])} of {one['n_pairs']:,} pairs above chance by {measure}, "
        f"{_counted(n_families, 'split family', 'split families')}"
    )


def _is_figure(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _counted(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"


def _few(names: Sequence[str]) -> str:
    """The first name, and how many more there are."""
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def number(value: Any) -> str:
    """A figure for people: four significant digits, counts whole, a missing value as such."""
    if value is None:
        return "not available"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _section(title: str, values: Mapping[str, Any]) -> None:
    if values:
        print(f"  {title}:")
        for key, value in values.items():
            _entry(key, value, "    ")


def _entry(key: str, value: Any, indent: str) -> None:
    if isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        value = {number: item for number, item in enumerate(value) if item}
    if isinstance(value, Mapping):
        print(f"{indent}{key}:" + ("" if value else " none"))
        for inner, item in value.items():
            _entry(str(inner), item, indent + "  ")
    elif isinstance(value, list) and not value:
        print(f"{indent}{key}: none")
    elif isinstance(value, list):
        shown = ", ".join(map(number, value)) if len(value) <= LONG else f"{len(value)} values"
        print(f"{indent}{key}: {shown}")
    else:
        print(f"{indent}{key}: {number(value)}")
