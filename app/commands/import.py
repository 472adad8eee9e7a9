"""`monosem import`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from app.arguments import RootArgs, parse
from app.log import progress
from app.summary import print_run
from autointerp.index.config import IndexConfig
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Read explanations of an index, or what fires where as an index of its own, from another tool's files.

    docs/exchange.md says what becomes of each field. An index that was imported has no dictionary and no model: `sql`,
    `explain`, `score` and `export` work on it, the dashboard does not.

    Example: monosem import delphi results/run1/latents --model gpt2

    Example: monosem import neuronpedia explanations/ --index-run latest
    """

    format: tyro.conf.Positional[Literal["delphi", "neuronpedia"]]
    """delphi: a latent cache, as a text and an index. neuronpedia: JSON lines of explanations, gzipped or not."""
    path: tyro.conf.Positional[Path]
    """The file or folder."""
    model: str | None = None
    """delphi: the model whose tokenizer wrote the tokens, as for `monosem harvest`; by default what the cache names."""
    hook_point: str | None = None
    """delphi: which cache of several."""
    index: IndexConfig = field(default_factory=IndexConfig)
    index_run: str = "latest"
    """neuronpedia: the index of the same dictionary."""
    source: str | None = None
    """neuronpedia: only explanations of this dictionary (their `layer`)."""
    type: str | None = None
    """neuronpedia: only explanations written in this way (their `typeName`)."""
    explainer: str = "neuronpedia"
    """neuronpedia: what the explanations are called here."""


def main(arguments: Sequence[str]) -> None:
    """Parse and read."""
    args = parse(Args, "import", arguments)
    if args.format == "delphi":
        from autointerp.exchange.delphi_read import DelphiConfig, import_delphi

        cfg = DelphiConfig(model=args.model, hook_point=args.hook_point, index=args.index)
        print_run(import_delphi(cfg, args.path, args.root, progress))
        return
    from autointerp.exchange.neuronpedia_read import NeuronpediaConfig, import_neuronpedia

    wanted = NeuronpediaConfig(source=args.source, type=args.type, explainer=args.explainer)
    print_run(import_neuronpedia(wanted, args.path, find_run(args.root, args.index_run, "index"), args.root))
