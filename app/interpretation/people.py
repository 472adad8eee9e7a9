"""What people's blind ratings say, as rows: the same on the terminal and on the dashboard."""

from collections.abc import Iterator
from typing import Any

from app.estimates import figure, interval
from autointerp.ratings import RatingReport


def rating_rows(found: RatingReport) -> Iterator[dict[str, Any]]:
    """Of every explainer, the null, every two raters and every scorer."""
    for name, mean in found.explainers.items():
        yield _row("explainer", name, "mean rating", mean.value, mean.interval, mean.n_groups)
    null = found.against_null
    named = ("null", "explanation − shuffled", "difference")
    yield _row(*named, null.difference, null.interval, null.n_latents, null.p_value)
    for (one, other), kappa in found.raters.items():
        yield _row("raters", f"{one}, {other}", "weighted kappa", kappa.value, kappa.interval, kappa.n)
    for name, spearman in found.scorers.items():
        yield _row("scorer", name, "Spearman", spearman.value, spearman.interval, spearman.n)


def _row(
    what: str,
    of: str,
    measure: str,
    value: float | None,
    ends: tuple[float, float] | None,
    n: int,
    p_value: float | None = None,
) -> dict[str, Any]:
    low, high = ends or (None, None)
    named = {"what": what, "of": of, "measure": measure}
    return {**named, "value": value, "ci_low": low, "ci_high": high, "n": n, "p_value": p_value}


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row as text."""
    ends = None if row["ci_low"] is None else (row["ci_low"], row["ci_high"])
    return {
        "what": row["what"],
        "of": row["of"],
        "measure": row["measure"],
        "value": figure(row["value"]),
        "95%": interval(ends),
        "n": f"{row['n']:,}",
        "p": "" if row["p_value"] is None else figure(row["p_value"], digits=4),
    }
