"""The main tables of an interpretation report, as the terminal shows them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from app.interpretation.view import ABOVE_COLUMNS, FATES, above_rows
from autointerp.reporting import Figures, Subject


class Printed(NamedTuple):
    """A table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def summary(of: Subject, found: Figures) -> Iterator[Printed]:
    """Score minus null, what became of every latent, and what could not be read."""
    yield Printed("score minus null", ABOVE_COLUMNS, above_rows(of, found))
    fates = [[of.labels[row["run"]], *(f"{row[name]:,}" for name in (*FATES, "width"))] for row in found.denominators]
    yield Printed("latents", ("scorer", *(name.replace("_", " ") for name in FATES), "in all"), fates)
    n_unread, n_read = (sum(row[name] for row in found.unread) for name in ("n_unread", "n_read"))
    rows = [
        ["answers read", f"{n_read:,}"],
        ["answers that could not be read", f"{n_unread:,}"],
        ["explanations that quote what the explainer saw", f"{len(found.leakage):,}"],
        ["calls of language models", f"{sum(row['n_calls'] for row in found.calls):,}"],
    ]
    yield Printed("in all", ("", ""), rows)
