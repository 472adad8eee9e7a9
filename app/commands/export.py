"""`monosem export`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from app.arguments import RootArgs, parse
from app.log import progress
from autointerp.exchange.export import ExportConfig
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Write latents of an index in another tool's format, or as a page that opens offline.

    docs/exchange.md says what becomes of each field, and what cannot be represented.

    Example: monosem export html --latents 1,2,5-9 --out features.html

    Example: monosem export delphi --out cache
    """

    format: tyro.conf.Positional[Literal["delphi", "html", "neuronpedia", "saelens"]]
    """delphi: a folder, the latent cache that its explainers and scorers read. neuronpedia: a folder of JSON lines, as
    it imports them. html: one file, a page without scripts. saelens: one file, a list of features."""
    out: Path
    """The file or folder to write: a folder must be new or empty, a file is replaced."""
    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    latents: str | None = None
    """Which latents, such as 1,2,5-9; by default all of them."""
    where: str | None = None
    """Which latents, as SQL over the columns of `features`, such as "score > 0.8 and density < 0.01"."""
    called: ExportConfig = field(default_factory=ExportConfig)


def main(arguments: Sequence[str]) -> None:
    """Parse and write."""
    args = parse(Args, "export", arguments)
    from app.exporting import FORMATS
    from autointerp.exchange.export import Export, choose
    from store.feature_index import FeatureIndex

    index = FeatureIndex(find_run(args.root, args.index_run, "index").folder)
    export = Export(index, choose(index, args.latents, args.where), args.called)
    done = FORMATS[args.format].write(args.out, export, progress)
    print(f"wrote {args.format}: {len(export.latents):,} latents of index {index.run.id}, as {args.out}")
    for name, value in done.items():
        print(f"  {name}: {value:,}")
