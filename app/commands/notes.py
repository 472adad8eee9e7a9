"""`monosem notes`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import tyro

from app.arguments import RootArgs, parse
from app.cli import choose
from app.person import user_name
from app.rows import Format, print_rows
from store.errors import UsageError
from store.notes import Notes
from store.run import find_run

WHAT = {
    "label": "say what a latent is",
    "rate": "say how interpretable a latent is, 1 to 5",
    "list": "put latents on a named list, or take them off",
    "show": "print labels, ratings and lists of a dictionary",
    "export": "print all that was ever written, a JSON object a line",
}
"""What can be done, and one line each."""
ABOUT = """What people write about latents: kept by dictionary, with every version.

Example: monosem notes label 3 "names of places\""""


@dataclass(frozen=True, kw_only=True)
class OfDictionary(RootArgs):
    """Notes are of a dictionary, so every index of it has them."""

    sae: str = "latest"
    """The dictionary: an id, the start of one, a folder, or `latest`."""


@dataclass(frozen=True, kw_only=True)
class ByAuthor(OfDictionary):
    """Who writes."""

    author: str = field(default_factory=user_name)
    """Who says so."""


@dataclass(frozen=True, kw_only=True)
class LabelArgs(ByAuthor):
    """Say what a latent is; the labels it had before are kept, and an empty one takes yours back.

    Example: monosem notes label 3 "names of places"
    """

    latent: tyro.conf.Positional[int]
    """Its number."""
    text: tyro.conf.Positional[str]
    """What it is."""


@dataclass(frozen=True, kw_only=True)
class RateArgs(ByAuthor):
    """Say how interpretable a latent is.

    Example: monosem notes rate 3 5
    """

    latent: tyro.conf.Positional[int]
    """Its number."""
    value: tyro.conf.Positional[int]
    """1 (not at all) to 5."""


@dataclass(frozen=True, kw_only=True)
class ListArgs(ByAuthor):
    """Put latents on a named list.

    Example: monosem notes list places 3 17
    """

    name: tyro.conf.Positional[str]
    """Of the list; it is made if there is none."""
    latents: tyro.conf.Positional[tuple[int, ...]]
    """Their numbers."""
    remove: bool = False
    """Take them off."""


@dataclass(frozen=True, kw_only=True)
class ShowArgs(OfDictionary):
    """Print the newest of everybody's labels and ratings, and the lists.

    Example: monosem notes show
    """

    format: Format = "table"
    """How rows are printed; json is one object a line."""


@dataclass(frozen=True, kw_only=True)
class ExportArgs(RootArgs):
    """Print every row that was ever written, of every dictionary, a JSON object a line.

    Example: monosem notes export
    """


def main(arguments: Sequence[str]) -> None:
    """Parse, then write or print."""
    what = choose("monosem notes", ABOUT, WHAT, list(arguments))
    if what is not None:
        DONE[what](arguments[1:])


def _latents(args: OfDictionary, latents: Sequence[int]) -> str:
    """The dictionary's id, if it has these latents."""
    run = find_run(args.root, args.sae, "sae")
    for latent in latents:
        if not 0 <= latent < run.results["d_sae"]:
            raise UsageError(f"there is no latent {latent}: choose 0 to {run.results['d_sae'] - 1}")
    return run.id


def _label(arguments: Sequence[str]) -> None:
    args = parse(LabelArgs, "notes label", arguments)
    Notes(args.root).label(_latents(args, [args.latent]), args.latent, args.text, args.author)


def _rate(arguments: Sequence[str]) -> None:
    args = parse(RateArgs, "notes rate", arguments)
    Notes(args.root).rate(_latents(args, [args.latent]), args.latent, args.value, args.author)


def _list(arguments: Sequence[str]) -> None:
    args = parse(ListArgs, "notes list", arguments)
    notes = Notes(args.root)
    change = notes.remove_from_list if args.remove else notes.add_to_list
    change(_latents(args, args.latents), args.name, args.latents, args.author)


def _show(arguments: Sequence[str]) -> None:
    args = parse(ShowArgs, "notes show", arguments)
    notes, sae = Notes(args.root), _latents(args, [])
    rows = [("label", each.latent, each.text, each.author, each.made_at) for each in notes.labels(sae)]
    rows += [("rating", each.latent, str(each.value), each.author, each.made_at) for each in notes.ratings(sae)]
    rows += [("list", latent, name, None, None) for name, latents in notes.lists(sae).items() for latent in latents]
    print_rows(pd.DataFrame(rows, columns=["what", "latent", "text", "author", "made_at"]), args.format)


def _export(arguments: Sequence[str]) -> None:
    args = parse(ExportArgs, "notes export", arguments)
    for row in Notes(args.root).export():
        print(json.dumps(row))  # in ASCII: a text may hold commands for the terminal


DONE = {"label": _label, "rate": _rate, "list": _list, "show": _show, "export": _export}
