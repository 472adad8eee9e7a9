"""Runs as text: what it is, what made it, what it scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.log import printable
from store.run import Run, list_runs

if TYPE_CHECKING:
    from app.evaluation.evaluated import Parts

COUNTED = ("part", "n_figures")
"""Results of an evaluation that are not among its figures."""
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
    if full:
        for other in list_runs(run.root):
            if run.id in other.inputs.values():
                print(f"  used by: {other.kind} {other.id}")
                if other.kind in ("evaluation", "scores"):
                    _section("  results", other.results)


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
        "report": lambda: f"{results['n_dictionaries']} dictionaries in {results['file']}",
        "index": lambda: (
            f"{results['n_alive']:,} of {results['n_latents']:,} latents alive, {results['n_events']:,} events"
        ),
        "explanations": lambda: f"{results['n_explained']} latents explained by {config['explainer']}",
        "scores": lambda: (
            f"{config['scorer']} {number(results['explanation']['mean'])}, "
            f"shuffled {number(results['shuffled']['mean'])}"
        ),
    }
    return describe[run.kind]() if run.kind in describe else ""


def _evaluation_headline(results: Mapping[str, Any]) -> str:
    """A part's name and what sums it up."""
    if "not_applicable" in results:
        return f"{results['part']} does not apply: {results['not_applicable']}"
    told = [f"{key.replace('_', ' ')} {number(value)}" for key, value in results.items() if key not in COUNTED]
    return f"{results['part']}: {', '.join(told) or str(results['n_figures']) + ' figures'}"


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
    if isinstance(value, Mapping):
        print(f"{indent}{key}:")
        for inner, item in value.items():
            _entry(inner, item, indent + "  ")
    elif isinstance(value, list):
        shown = ", ".join(map(number, value)) if len(value) <= LONG else f"{len(value)} values"
        print(f"{indent}{key}: {shown}")
    else:
        print(f"{indent}{key}: {number(value)}")
