"""The tables of the notes file, and what brings a file of an older version to the newest."""

import sqlite3
from collections.abc import Callable, Iterator


def _first(connection: sqlite3.Connection) -> None:
    """Labels, ratings, lists, history."""
    for statement in (
        "CREATE TABLE labels (id INTEGER PRIMARY KEY, sae TEXT NOT NULL, latent INTEGER NOT NULL CHECK (latent >= 0),"
        " author TEXT NOT NULL, text TEXT NOT NULL, made_at TEXT NOT NULL)",
        "CREATE INDEX labels_of ON labels (sae, latent)",
        "CREATE TABLE ratings (id INTEGER PRIMARY KEY, sae TEXT NOT NULL, latent INTEGER NOT NULL CHECK (latent >= 0),"
        " author TEXT NOT NULL, value INTEGER NOT NULL CHECK (value BETWEEN 1 AND 5), made_at TEXT NOT NULL)",
        "CREATE INDEX ratings_of ON ratings (sae, latent)",
        "CREATE TABLE lists (id INTEGER PRIMARY KEY, sae TEXT NOT NULL, name TEXT NOT NULL, made_at TEXT NOT NULL,"
        " UNIQUE (sae, name))",
        "CREATE TABLE list_entries (id INTEGER PRIMARY KEY, list INTEGER NOT NULL REFERENCES lists (id),"
        " latent INTEGER NOT NULL CHECK (latent >= 0), author TEXT NOT NULL, is_in INTEGER NOT NULL, made_at TEXT NOT"
        " NULL)",
        "CREATE INDEX entries_of ON list_entries (list, latent)",
        "CREATE TABLE history (id INTEGER PRIMARY KEY, sae TEXT NOT NULL, author TEXT NOT NULL, settings TEXT NOT NULL,"
        " result TEXT NOT NULL, made_at TEXT NOT NULL)",
        *(
            trigger
            for table in ("labels", "ratings", "lists", "list_entries", "history")
            for trigger in _only_added_to(table)
        ),
    ):
        connection.execute(statement)


def _rated_blind(connection: sqlite3.Connection) -> None:
    """Ratings of explanations whose source the rater did not see."""
    for statement in (
        "CREATE TABLE blind_ratings (id INTEGER PRIMARY KEY, sae TEXT NOT NULL, latent INTEGER NOT NULL CHECK (latent"
        " >= 0), sheet TEXT NOT NULL, place INTEGER NOT NULL, run TEXT NOT NULL, explainer TEXT NOT NULL, arm TEXT NOT"
        " NULL, text TEXT NOT NULL, author TEXT NOT NULL, value INTEGER NOT NULL CHECK (value BETWEEN 1 AND 5),"
        " made_at TEXT NOT NULL)",
        "CREATE INDEX blind_ratings_of ON blind_ratings (sae, latent)",
        *_only_added_to("blind_ratings"),
    ):
        connection.execute(statement)


def _only_added_to(table: str) -> Iterator[str]:
    for verb in ("UPDATE", "DELETE"):
        yield (
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
            " BEGIN SELECT RAISE(ABORT, 'notes are only added to'); END"
        )


def _views(connection: sqlite3.Connection) -> None:
    """Views of the dashboard that somebody gave a name."""
    for statement in (
        "CREATE TABLE views (id INTEGER PRIMARY KEY, sae TEXT NOT NULL, name TEXT NOT NULL, page TEXT NOT NULL, query"
        " TEXT NOT NULL, author TEXT NOT NULL, made_at TEXT NOT NULL)",
        "CREATE INDEX views_of ON views (sae, name)",
        *_only_added_to("views"),
    ):
        connection.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first, _rated_blind, _views)
"""What brings a file from each version to the next; the version is how many were applied."""
TABLES = ("labels", "ratings", "lists", "list_entries", "history", "blind_ratings", "views")
