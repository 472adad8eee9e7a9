"""`monosem report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from app.arguments import RootArgs, parse
from app.rows import print_rows
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Show what explanations are worth: their scores next to nulls, as plots on one page that opens offline.

    Every figure of the page is read from an SQL query that stands under it.

    Example: monosem report --out interpretation.html
    """

    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    explanations: str = "latest"
    """Of several runs of explanations, which: an id, the start of one, or `latest`, the newest that has scores."""
    latents: tuple[int, ...] = ()
    """Whose evidence is shown; by default some of the best, of the middle and of the worst."""
    out: Path = Path("interpretation.html")
    """The file to write: it is replaced if it is there."""


def main(arguments: Sequence[str]) -> None:
    """Parse, read, write the page and print its main table."""
    args = parse(Args, "report", arguments)
    from app.interpretation.job import write_page
    from app.interpretation.terminal import summary
    from app.interpretation.view import page
    from autointerp.reporting import evidence, figures, subject
    from store.feature_index import FeatureIndex

    index = FeatureIndex(_index(args))
    of = subject(index, args.explanations)
    found = figures(index, of)
    latents = list(dict.fromkeys(args.latents)) or [row["latent"] for row in found.chosen]
    write_page(page(index, of, found, evidence(index, of, latents)), args.out)
    for title, columns, rows in summary(of, found):
        print(title)
        print_rows(pd.DataFrame(rows, columns=list(columns)), "table")
    print(f"wrote the report on explanations {of.explanations.id}, as {args.out}")


def _index(args: Args) -> Path:
    return find_run(args.root, args.index_run, "index").folder
