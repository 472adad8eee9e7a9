"""`monosem sql`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from app.arguments import RootArgs, parse
from store.index import FeatureIndex
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Query a published index. Read-only, and confined to the index: no query can touch a file or the network.

    Tables: latents, events, contexts, logits, sequences, documents, explanations, scores, runs; view: features.

    Example: monosem sql "select latent, density, explanation, score from features order by score desc limit 5"
    """

    query: tyro.conf.Positional[str]
    """One SQL statement in DuckDB's dialect."""
    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    format: Literal["table", "csv", "json"] = "table"
    """How rows are printed; json is one object a line."""


def main(arguments: Sequence[str]) -> None:
    """Parse, query and print."""
    args = parse(Args, "sql", arguments)
    frame = FeatureIndex(find_run(args.root, args.index_run, "index").folder).sql(args.query)
    if args.format == "csv":
        frame.to_csv(sys.stdout, index=False)
    elif args.format == "json":
        print(frame.to_json(orient="records", lines=True, force_ascii=False), end="")
    else:
        print(frame.to_string(index=False, max_colwidth=80))
