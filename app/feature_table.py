"""Latents as one wide table: the view `features`, more of their statistics and what people noted, asked in SQL.

A question is answered in two steps: the numbers of all latents that pass, in order, and the rows of those that are
shown. What is typed may go into the condition, so it is asked of a confined connection, read-only and with an end.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from app.feature_query import question
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.notes import Notes

PAGE_SIZE = 50
"""Rows of a page."""
MORE = ("min", "q90", "q99", "q999", "source_entropy", "special_share", "event_share", "n_events")
"""Columns of `latents` that `features` has not."""
NOTED = ("label", "rating", "lists")
"""What people wrote, as columns: labels joined, the mean rating, and names of lists."""
TABLE = f"""
WITH noted AS (
    SELECT unnest($noted::INTEGER[]) AS latent, unnest($label::VARCHAR[]) AS label, unnest($rating::DOUBLE[]) AS rating,
           unnest($lists::VARCHAR[]) AS lists
), features_and_notes AS (
    SELECT f.*, {", ".join(f"l.{name}" for name in MORE)}, {", ".join(f"noted.{name}" for name in NOTED)}
    FROM features f JOIN latents l USING (latent) LEFT JOIN noted USING (latent)
)
"""
PASSING = TABLE + "SELECT f.latent FROM features_and_notes f WHERE {where}\nORDER BY {order}\n, f.latent{cut}\n"
SHOWN = TABLE + "SELECT f.* FROM features_and_notes f WHERE f.latent IN (SELECT unnest($shown::INTEGER[]))"
BEST_FIRST = "f.score DESC NULLS LAST"
CONDITIONS = {
    "text": "(f.explanation ILIKE $pattern ESCAPE '^' OR f.promotes ILIKE $pattern ESCAPE '^' "
    "OR f.label ILIKE $pattern ESCAPE '^')",
    "low": "f.density >= $low",
    "high": "f.density <= $high",
    "explained": "f.explanation IS NOT NULL",
    "scored": "f.score IS NOT NULL",
    "alive": "f.n_fired > 0",
    "among": "f.latent IN (SELECT unnest($among::INTEGER[]))",
}
"""Of the fields of `Filters`: nothing that a person typed is part of these."""
SEPARATOR = ", "


class NotesOf(NamedTuple):
    """What people wrote about the latents of a dictionary, a row a latent."""

    latent: tuple[int, ...] = ()
    label: tuple[str | None, ...] = ()
    """Every author's newest, joined."""
    rating: tuple[float | None, ...] = ()
    """The mean over authors."""
    lists: tuple[str | None, ...] = ()
    """Names of the lists it is on, joined."""

    def parameters(self) -> dict[str, list[Any]]:
        """As `TABLE` takes them."""
        return {
            "noted": list(self.latent),
            "label": list(self.label),
            "rating": list(self.rating),
            "lists": list(self.lists),
        }


def notes_of(notes: Notes, sae: str) -> NotesOf:
    """What is noted of the dictionary `sae`.

    Raises:
        UsageError: the file cannot be read.
    """
    labels: dict[int, list[str]] = {}
    for label in notes.labels(sae):
        labels.setdefault(label.latent, []).append(label.text)
    ratings: dict[int, list[int]] = {}
    for rating in notes.ratings(sae):
        ratings.setdefault(rating.latent, []).append(rating.value)
    lists: dict[int, list[str]] = {}
    for name, latents in notes.lists(sae).items():
        for latent in latents:
            lists.setdefault(latent, []).append(name)
    noted = sorted({*labels, *ratings, *lists})
    return NotesOf(
        tuple(noted),
        tuple(SEPARATOR.join(labels[each]) if each in labels else None for each in noted),
        tuple(float(np.mean(ratings[each])) if each in ratings else None for each in noted),
        tuple(SEPARATOR.join(lists[each]) if each in lists else None for each in noted),
    )


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which latents are asked for."""

    text: str = ""
    """Stands in the explanation, a label, or the tokens that it promotes most."""
    low: float | None = None
    """Density at least."""
    high: float | None = None
    """Density at most."""
    explained: bool = False
    scored: bool = False
    alive: bool = False
    among: tuple[int, ...] | None = None
    """One of these, such as those on a list."""
    sql: str = ""
    """A condition over the columns, and after it, if wanted, ORDER BY, LIMIT and OFFSET."""

    def asked(self) -> tuple[str, dict[str, Any]]:
        """The conditions in SQL but for `sql`, and their parameters."""
        asked = {field.name: getattr(self, field.name) for field in fields(self) if field.name in CONDITIONS}
        # Not by their truth: a density of 0 is a bound.
        chosen = {name: value for name, value in asked.items() if value is not False and value not in (None, "")}
        parameters = {name: chosen[name] for name in ("low", "high") if name in chosen}
        if "among" in chosen:
            parameters["among"] = list(chosen["among"])
        if "text" in chosen:
            parameters["pattern"] = f"%{self.text.translate(str.maketrans({each: f'^{each}' for each in '^%_'}))}%"
        return " AND ".join(CONDITIONS[name] for name in chosen) or "true", parameters


class FeatureTable:
    """The latents of one index with what was noted of them; safe to share between threads."""

    def __init__(self, index: FeatureIndex) -> None:
        self._index = index

    def version(self) -> str:
        """Changes whenever there is something new to read."""
        return self._index.version()

    def columns(self) -> dict[str, str]:
        """The names of all columns, and DuckDB's types."""
        query = f"DESCRIBE {TABLE} SELECT * FROM features_and_notes"
        rows = self._index.sql(query, NotesOf().parameters())
        return dict(zip(rows["column_name"], rows["column_type"], strict=True))

    def passing(self, filters: Filters, noted: NotesOf, order: str = BEST_FIRST) -> np.ndarray:
        """`[n]` int32: the latents that pass, in order, ties by their number.

        Args:
            filters: which; an ORDER BY of their `sql` goes before `order`.
            noted: what people wrote.
            order: terms of an ORDER BY over `f`, the table: never of a person's making.

        Raises:
            UsageError: DuckDB refuses the condition, with its own words, or it takes too long.
        """
        where, parameters = filters.asked()
        typed = question(filters.sql)
        cut = "".join(
            f" {name.upper()} {typed.clauses[name]}\n" for name in ("limit", "offset") if name in typed.clauses
        )
        query = PASSING.format(
            # On a line of its own: it may end in a comment.
            where=f"{where} AND (\n{typed.condition}\n)",
            order=typed.clauses.get("order by", order),
            cut=cut,
        )
        try:
            return self._index.arrow(query, {**noted.parameters(), **parameters}).column("latent").to_numpy()
        except UsageError as error:
            if not filters.sql:
                raise
            raise UsageError(f"{error}: the columns are {' '.join(self.columns())}") from error

    def rows(self, latents: np.ndarray, noted: NotesOf) -> pd.DataFrame:
        """The rows of some latents in their order, with all columns."""
        found = self._index.sql(SHOWN, {**noted.parameters(), "shown": latents.tolist()}).set_index("latent")
        return found.loc[latents].reset_index()


def explained(index: FeatureIndex, latents: list[int]) -> dict[int, dict[str, Any]]:
    """`density explanation` of each of some latents, by their number."""
    query = "SELECT latent, density, explanation FROM features WHERE latent IN (SELECT unnest(?::INTEGER[]))"
    return {row["latent"]: row for row in index.arrow(query, [latents]).to_pylist()}
