"""`monosem sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import tyro

from app.arguments import RootArgs, parse
from app.rows import Format, print_rows
from store.catalog import Catalog
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.run import find_run, list_runs


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Query a published index, or the catalogue of everything harvested. Read-only: no query can change a file, or
    touch one outside the runs, or the network.

    Tables of an index (docs/schema.md has their columns): features, latents, events, contexts, ngrams, coactivations,
    neighbours, logits, logit_effects, heads, plane, titles, documents, sequences, explanations, scores, runs.
    Tables of the catalogue: runs, shards, documents, sequences, tokens, rows (a stored vector each), statistics;
    and of what was evaluated: figures (a measured number each), curves, compared (controls beside the dictionary).

    Example: monosem sql "select latent, density, explanation, score from features order by score desc limit 5"

    Example: monosem sql "select run, hook_point, count(*) from rows group by all" --over catalogue

    Example: monosem sql "select sae, metric, value, controls['random'] as random from compared" --over catalogue
    """

    query: tyro.conf.Positional[str]
    """One SQL statement in DuckDB's dialect."""
    over: Literal["index", "catalogue"] = "index"
    """What is asked: the index of a dictionary, or all finished runs."""
    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    timeout_s: float = 600.0
    """The query is stopped after so long; Ctrl-C stops it at once."""
    format: Format = "table"
    """How rows are printed; json is one object a line."""


def main(arguments: Sequence[str]) -> None:
    """Parse, query and print."""
    args = parse(Args, "sql", arguments)
    print_rows(_answer(args), args.format)


def _answer(args: Args) -> pd.DataFrame:
    if args.over == "catalogue":
        return Catalog(args.root, args.timeout_s).sql(args.query)
    if args.index_run == "latest" and not list_runs(args.root, "index"):
        raise UsageError(
            f"no finished index run in {args.root}: make one with `monosem index`, or ask what was harvested with "
            "--over catalogue"
        )
    return FeatureIndex(find_run(args.root, args.index_run, "index").folder, args.timeout_s).sql(args.query)
