"""`monosem steer sweep`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from app.arguments import RootArgs, checked, lines_of, parse, unchecked
from app.log import printable, progress
from app.rows import print_rows
from autointerp.steer_config import SteerConfig
from autointerp.sweep.config import SweepConfig
from store.run import find_run

EDIT = SteerConfig(latents=(0,))
"""Stands in for the edit where it is asked for beside its sweep."""
TEXTS = ("words", "prompts", "retain", "concept_texts")
"""That may be files."""


class Edit(unchecked(SteerConfig, {"strength": EDIT.strength, "when": EDIT.when, "causal": EDIT.causal})):
    """What is done; its strength and tier are swept."""


class Swept(unchecked(SweepConfig, {"edit": EDIT})):
    """On what it is measured, and beside what."""


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Measure what an edit does and what it costs, at several strengths, beside controls.

    The effect is the probability that the next token begins one of the concept's words. Beside it stand random latents
    that fire as often, and random directions, moved as far in the same places; the perplexity of steered texts under
    the clean model; and what the edit does to texts without the concept. Texts are given one by one, or as @FILE, a
    line each. With --concept-texts a probe, and with --concept a language model, tell the effect from what was written.

    Example: monosem steer sweep --latents 21 --words moon sun --prompts "At night" "Far above" --retain @plain.txt
    """

    edit: Edit
    swept: Swept = field(default_factory=Swept)
    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    out: Path = Path("steering.html")
    """The page to write: it is replaced if it is there."""


def main(arguments: Sequence[str]) -> None:
    """Parse, measure, write the page and print its tables."""
    args = parse(Args, "steer sweep", arguments)
    from app.interpretation.job import write_page
    from app.sweeping.view import COLUMNS, OTHER_COLUMNS, other_rows, page, remarks, rows
    from autointerp.sweep.job import sweep

    edit = checked(SteerConfig, args.edit, strength=EDIT.strength, when=EDIT.when, causal=EDIT.causal)
    texts: dict[str, Any] = {name: lines_of(name, getattr(args.swept, name)) for name in TEXTS}
    cfg = checked(SweepConfig, args.swept, edit=edit, **texts)
    run = sweep(cfg, find_run(args.root, args.index_run, "index"), args.root, progress)
    print_rows(pd.DataFrame(rows(run.results), columns=list(COLUMNS)), "table")
    if others := other_rows(run.results):
        print_rows(pd.DataFrame(others, columns=list(OTHER_COLUMNS)), "table")
    for line in remarks(run.results):
        print(printable(line))
    write_page(page(run), args.out)
    print(f"wrote sweep {run.id} with plots, texts and the same in Python, as {args.out}")
