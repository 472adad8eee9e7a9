"""`monosem align`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import tyro

from app.arguments import RootArgs, parse
from app.estimates import figure, interval
from app.log import progress
from app.rows import Format, print_rows
from autointerp.aligning import AligningConfig, align
from store.aligned import Aligned
from store.errors import UsageError
from store.run import Run, find_run, list_runs

MOST = 20
"""Latents named in a hint."""


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Which latents of two or more dictionaries are the same, and are nearby layers more alike than far ones?

    Every two are paired one to one by activations, decoder rows or explanations, beside a null: random directions, or
    rotated sequences. Pairs above the null are judged by another measure, beside the same latents paired at random.
    Ask the result with `monosem sql --over alignment`.

    Example: monosem align 3f2a 9c41 77d0 --by weights
    """

    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Indexes, or explanations of them: ids, starts of ids or folders; nothing takes the two newest indexes."""
    aligning: AligningConfig = field(default_factory=AligningConfig)
    format: Format = "table"
    """How rows are printed; json is one object a line."""


def main(arguments: Sequence[str]) -> None:
    """Parse, align and print."""
    args = parse(Args, "align", arguments)
    run = align(args.aligning, _named(args), args.root, progress)
    of = Aligned(run.folder)
    rows = of.sql("FROM alignments ORDER BY layers_apart, a, b")
    if args.format != "table":
        print_rows(rows, args.format)
        return
    print(f"alignment {run.id}   {run.folder}")
    print_rows(pd.DataFrame([_shown(row) for row in _records(rows)]), "table")
    distances = _records(of.sql("FROM distances ORDER BY layers_apart"))
    if run.results["near_minus_far"] is not None:
        _print_distances(distances, run.results["near_minus_far"])
    for index, latents in run.results["to_explain"].items():
        _print_hint(index, latents)


def _named(args: Args) -> Sequence[Run]:
    if args.runs:
        return [find_run(args.root, name) for name in args.runs]
    newest = list_runs(args.root, "index")[-2:]
    if len(newest) < 2:
        raise UsageError(f"{len(newest)} finished index runs in {args.root}, and two are aligned: make another first")
    return newest


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {
        "a": f"{row['a'][:6]} {row['hook_point_a']}",
        "b": f"{row['b'][:6]} {row['hook_point_b']}",
        "apart": str(row["layers_apart"]),
        "mean best": figure(row["mean_best"]),
        "null": figure(row["mean_best_null"]),
        "mutual": figure(row["mutual"]),
        "null ": figure(row["mutual_null"]),
        "matched": f"{row['n_matched']:,} of {row['n_pairs']:,}",
        "judged": f"{row['n_judged']:,} by {row['judged_by']}" if row["judged_by"] else "by nothing",
        "likeness": figure(row["likeness"]),
        "null  ": figure(row["likeness_null"]),
        "difference": figure(row["difference"], signed=True),
        "95%": _ends(row),
        "p": figure(row["p_value"], digits=4),
    }


def _ends(row: dict[str, Any]) -> str:
    return interval(None if row["ci_low"] is None else (row["ci_low"], row["ci_high"]))


def _print_distances(distances: Sequence[dict[str, Any]], near_minus_far: dict[str, Any]) -> None:
    rows = [
        {
            "layers apart": str(row["layers_apart"]),
            "alignments": str(row["n_alignments"]),
            "likeness − null": figure(row["difference"], signed=True),
            "95%": _ends(row),
        }
        for row in distances
    ]
    print_rows(pd.DataFrame(rows), "table")
    print(
        f"nearest − farthest layers: {figure(near_minus_far['difference'], signed=True)} "
        f"p {figure(near_minus_far['p_value'], digits=4)}, of {near_minus_far['n_near']:,} and "
        f"{near_minus_far['n_far']:,} pairs of layers"
    )


def _print_hint(index: str, latents: Sequence[int]) -> None:
    shown = " ".join(map(str, latents[:MOST]))
    more = f" … ({len(latents):,} in all)" if len(latents) > MOST else ""
    print(f"to judge more pairs: monosem explain --index-run {index} --latents {shown}{more}")
