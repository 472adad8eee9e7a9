"""`monosem search`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from app.arguments import RootArgs, checked, parse
from app.log import console, printable
from app.rows import Format, print_rows
from store.feature_index import FeatureIndex
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Find the latents that have to do with a query: that fire on text which reads so, on a token, or whose explanation
    has its words or means the like.

    What was found by text is ranked by the evidence that a latent fires there more often than elsewhere, so that 40 of
    41 matches outrank 1 of 1. docs/search.md has the columns.

    Example: monosem search "the harbour"

    Example: monosem search "day [0-9]+" --regex --n 5

    Example: monosem search walked --by explanation
    """

    query: tyro.conf.Positional[str]
    """A text; a token as it is written; words (all of them, phrases in double quotes, `walk*`); or a meaning."""
    by: Literal["text", "token", "explanation", "meaning"] = "text"
    """What is searched."""
    n: int = 20
    """Rows shown at most."""
    exact: bool = False
    """Text: upper and lower case differ."""
    regex: bool = False
    """Text: the query is a regular expression, as RE2 reads them."""
    max_matches: int = 10_000
    """Text: of more matches than these a sample is looked at."""
    seed: int = 0
    """Text: of the sample."""
    embedder: str = "minilm"
    """Meaning: what makes the embeddings; `hashed` needs no model and knows words only."""
    timeout_s: float = 30.0
    """Text: the search is given up after so long."""
    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    format: Format = "table"
    """How rows are printed; json is one object a line."""


def main(arguments: Sequence[str]) -> None:
    """Parse, search and print."""
    args = parse(Args, "search", arguments)
    from autointerp.search import SearchConfig, search

    index = FeatureIndex(find_run(args.root, args.index_run, "index").folder)
    frame = search(index, args.query, args.by, checked(SearchConfig, args))
    console.print(printable(frame.attrs["note"]), markup=False, soft_wrap=True)
    print_rows(frame, args.format)
