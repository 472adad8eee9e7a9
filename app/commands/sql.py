"""`monosem sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from app.arguments import RootArgs, parse
from app.rows import print_rows
from store.aligned import Aligned
from store.answers import WRITERS
from store.catalog import Catalog
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.matching import Matching
from store.run import find_run, list_runs
from store.swept import Swept


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Query a published index, a matching of two, or the catalogue of everything harvested. Read-only: no query can
    change a file, or touch one outside the runs, or the network.

    Tables of an index (docs/schema.md has their columns): features, latents, events, contexts, ngrams, coactivations,
    neighbours, logits, logit_effects, heads, plane, titles, documents, sequences, explanations, scores, runs.
    Tables of the catalogue: runs, shards, documents, sequences, tokens, rows (a stored vector each), statistics;
    and of what was evaluated: figures (a measured number each), curves, compared (controls beside the dictionary).
    Tables of a matching (docs/matching.md): latents, best, one_to_one, pairs, thresholds, families, children; and those
    of its indexes as a.features, b.features and so on.

    Example: monosem sql "select latent, density, explanation, score from features order by score desc limit 5"

    Example: monosem sql "select run, hook_point, count(*) from rows group by all" --over catalogue

    Example: monosem sql "from events where latent = 7" --out events.parquet

    Example: monosem sql "select sae, metric, value, controls['random'] as random from compared" --over catalogue
    """

    query: tyro.conf.Positional[str]
    """One SQL statement in DuckDB's dialect."""
    over: Literal["index", "matching", "alignment", "steering", "catalogue"] = "index"
    """What is asked: the index of a dictionary, a matching of two, alignments of several, a sweep of steering, or all
    finished runs."""
    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    matching: str = "latest"
    """The matching: an id, the start of one, a folder, or `latest`."""
    alignment: str = "latest"
    """The run of `monosem align`: an id, the start of one, a folder, or `latest`."""
    steering: str = "latest"
    """The run of `monosem steer sweep`: an id, the start of one, a folder, or `latest`."""
    timeout_s: float = 600.0
    """The query is stopped after so long; Ctrl-C stops it at once."""
    format: Literal["table", "csv", "json", "parquet"] | None = None
    """How rows are printed or written; json is one object a line. By default a table, or as --out ends."""
    out: Path | None = None
    """A file to write instead, in bounded memory: .csv, .json, .jsonl or .parquet. It is replaced if it is there."""


def main(arguments: Sequence[str]) -> None:
    """Parse, query and print."""
    args = parse(Args, "sql", arguments)
    if args.out is not None:
        print(f"wrote {_asked(args).write(args.query, args.out, _form(args, args.out)):,} rows, as {args.out}")
        return
    if args.format == "parquet":
        raise UsageError("parquet is no text to print: name a file with --out")
    print_rows(_asked(args).sql(args.query), args.format or "table")


def _form(args: Args, out: Path) -> str:
    """The format that was named, or the one that the file's name ends in."""
    form = args.format or {".jsonl": "json"}.get(out.suffix, out.suffix.removeprefix("."))
    if form not in WRITERS:
        raise UsageError(f"{out} ends in no format, nor is '{form}' one of a file: add --format {' or '.join(WRITERS)}")
    return form


def _asked(args: Args) -> Catalog | FeatureIndex | Matching | Aligned | Swept:
    if args.over == "catalogue":
        return Catalog(args.root, args.timeout_s)
    if args.over == "matching":
        return Matching(find_run(args.root, args.matching, "matching").folder, args.timeout_s)
    if args.over == "alignment":
        return Aligned(find_run(args.root, args.alignment, "alignment").folder, args.timeout_s)
    if args.over == "steering":
        return Swept(find_run(args.root, args.steering, "steering").folder, args.timeout_s)
    if args.index_run == "latest" and not list_runs(args.root, "index"):
        raise UsageError(
            f"no finished index run in {args.root}: make one with `monosem index`, or ask what was harvested with "
            "--over catalogue"
        )
    return FeatureIndex(find_run(args.root, args.index_run, "index").folder, args.timeout_s)
