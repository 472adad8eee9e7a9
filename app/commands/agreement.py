"""`monosem agreement`."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from app.arguments import parse
from app.commands.notes import ByAuthor
from app.interpretation.people import rating_rows, shown
from app.rows import Format, print_rows
from autointerp.ratings import SheetConfig
from store.errors import UsageError
from store.files import whole_file
from store.notes import Notes
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(ByAuthor):
    """How far people agree on explanations, with one another and with each scorer.

    `--sheet FILE` writes explanations to be rated from 1 to 5, in a random order, some of them of another latent, with
    contexts beside them; who wrote which is not on it. Filled in, `--load FILE` keeps the ratings; then, as with
    neither, it prints every explainer's mean rating and that of the nulls, Cohen's kappa (quadratic weights) of every
    two raters, and Spearman's correlation of the mean rating with each scorer's values, with 95% intervals.

    Example: monosem agreement --sheet ratings.csv
    """

    sheet: Path | None = None
    """Write a sheet there, as CSV: it is replaced if it is there."""
    load: Path | None = None
    """Keep the ratings of a filled-in sheet; or of a CSV, JSON or JSON-lines table of `latent` and `rating`, and
    `author` if there are several, made elsewhere."""
    explanations: tuple[str, ...] = ("latest",)
    """What is put on a sheet, mixed; or what a table made elsewhere is of."""
    show: SheetConfig = field(default_factory=SheetConfig)
    format: Format = "table"
    """How rows are printed; json is one object a line."""


def main(arguments: Sequence[str]) -> None:
    """Parse, then write a sheet, or keep what there is to keep and print."""
    args = parse(Args, "agreement", arguments)
    if args.sheet is not None and args.load is not None:
        raise UsageError("--sheet writes and --load reads: leave one out")
    if args.sheet is not None:
        _write(args, args.sheet)
        return
    named = [find_run(args.root, args.sae, "sae").id] if args.load is None else _load(args, args.load)
    for dictionary in named:
        _print(args, dictionary)


def _write(args: Args, out: Path) -> None:
    from autointerp.rating_sheets import SHEET, make_sheet

    named = [find_run(args.root, name, "explanations") for name in args.explanations]
    run = make_sheet(args.show, named, args.root)
    with whole_file(out) as scratch:
        shutil.copyfile(run.folder / SHEET, scratch)
    print(f"wrote {run.results['n']} explanations to rate, {run.results['n_null']} of them of another latent, as {out}")
    if run.results["n_left_out"]:
        print(f"left out {run.results['n_left_out']} contexts of documents that an explainer on the sheet saw")
    print("fill in its column `rating` with 1 (does not fit at all) to 5, and give it back:")
    print(f"  monosem agreement --load {out}")


def _load(args: Args, file: Path) -> Sequence[str]:
    from autointerp.rating_sheets import load_ratings

    explanations = find_run(args.root, args.explanations[0], "explanations")
    found = load_ratings(file, args.root, args.author, explanations)
    print(f"kept {found.n_rated} ratings; {found.n_empty} rows had none")
    return found.dictionaries


def _print(args: Args, sae: str) -> None:
    from autointerp.rating_sheets import scores_of
    from autointerp.ratings import rating_report

    ratings = Notes(args.root).blind_ratings(sae)
    if not ratings:
        raise UsageError(
            f"nobody has rated explanations of dictionary {sae}: write a sheet with --sheet ratings.csv, fill in its "
            "column `rating`, and give it back with --load ratings.csv"
        )
    scores = scores_of(args.root, sorted({each.run for each in ratings}))
    rows = list(rating_rows(rating_report(ratings, scores)))
    if args.format == "table":
        print_rows(pd.DataFrame([shown(row) for row in rows]), "table")
    else:
        print_rows(pd.DataFrame(rows), args.format)
