"""`monosem compare`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import tyro

from app.arguments import RootArgs, parse
from app.estimates import NOT_KNOWN, figure, interval
from app.log import printable
from app.rows import Format, print_rows
from store.errors import UsageError
from store.run import Run, find_run, list_runs

if TYPE_CHECKING:
    from autointerp.comparing import Row

MOST = 60
"""Characters of a setting."""


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Compare two runs of scores latent by latent: two explainers, prompts, judges or dictionaries.

    Every row is of the latents that both runs scored: the mean difference a − b, its 95% interval over latents, the
    p-value of flipping signs at random, alone and with Holm's correction over the rows, and how many latents find a
    difference of this size four times in five. `above NULL` is the score less the null's.

    Example: monosem compare 3f2a 9c41
    """

    a: tyro.conf.Positional[str | None] = None
    """A run of scores: its id, the start of one, a folder, or `latest`; nothing takes the two newest of the newest's
    scorer, the older as a."""
    b: tyro.conf.Positional[str | None] = None
    """Another, of the same scorer."""
    matching: str = ""
    """Where their latents are of two dictionaries: the run of `monosem match` that says which are the same."""
    measure: Literal["correlation", "decoder", "encoder"] = "correlation"
    """By which of the matching's measures."""
    format: Format = "table"
    """How rows are printed; json is one object a line."""


def main(arguments: Sequence[str]) -> None:
    """Parse, compare and print."""
    args = parse(Args, "compare", arguments)
    from autointerp.comparing import compare_scores
    from store.matching import Matching

    a, b = _named(args)
    matching = Matching(find_run(args.root, args.matching, "matching").folder) if args.matching else None
    found = compare_scores(a, b, matching, args.measure)
    rows = [_row(each) for each in found.rows]
    if args.format != "table":
        print_rows(pd.DataFrame(rows), args.format)
        return
    print(f"a: scores {a.id}   b: scores {b.id}   paired by {found.paired_by}")
    for name, values in found.differs.items():
        print(printable(f"  {name}: {_short(values[0])} | {_short(values[1])}"))
    print_rows(pd.DataFrame([_shown(row) for row in rows]), "table")


def _named(args: Args) -> Sequence[Run]:
    if args.a is not None and args.b is not None:
        return [find_run(args.root, name, "scores") for name in (args.a, args.b)]
    if args.a is not None:
        raise UsageError("one run of scores was named, and two are compared: name both, or none for the two newest")
    runs = list_runs(args.root, "scores")
    alike = [run for run in runs if run.config["scorer"] == runs[-1].config["scorer"]][-2:]
    if len(alike) < 2:
        raise UsageError(
            f"{len(alike)} runs of scores of one scorer in {args.root}, and two are compared: `monosem interpret` with "
            "another explainer, prompt or model makes one"
        )
    return alike


def _row(found: "Row") -> dict[str, Any]:
    of = found.found
    low, high = of.interval or (None, None)
    return {
        "what": found.what,
        "a": found.a,
        "b": found.b,
        "difference": of.difference,
        "ci_low": low,
        "ci_high": high,
        "p_value": of.p_value,
        "p_holm": found.adjusted_p,
        "n_latents": of.n_latents,
        "n_unpaired": of.n_unpaired,
        "n_needed": found.n_needed,
    }


def _shown(row: dict[str, Any]) -> dict[str, str]:
    ends = None if row["ci_low"] is None else (row["ci_low"], row["ci_high"])
    return {
        "what": row["what"],
        "a": figure(row["a"]),
        "b": figure(row["b"]),
        "a − b": figure(row["difference"], signed=True),
        "95%": interval(ends),
        "p": figure(row["p_value"], digits=4),
        "p, Holm": figure(row["p_holm"], digits=4),
        "latents": str(row["n_latents"]),
        "in one only": str(row["n_unpaired"]),
        "needed": NOT_KNOWN if row["n_needed"] is None else f"{row['n_needed']:,}",
    }


def _short(value: Any) -> str:
    text = "none" if value in (None, "", []) else str(value)
    return text if len(text) <= MOST else f"{text[: MOST - 1]}…"
