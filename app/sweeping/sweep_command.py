"""`monosem steer sweep`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from app.arguments import RootArgs, checked, lines_of, parse
from app.log import printable, progress
from app.rows import print_rows
from autointerp.steer_config import SteerConfig
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Measure what an edit does and what it costs, at several strengths, beside controls.

    The effect is the probability that the next token begins one of the concept's words. Beside it stand random latents
    that fire as often, and random directions, moved as far in the same places; the perplexity of steered texts under
    the clean model; and what the edit does to texts without the concept. Texts are given one by one, or as @FILE, a
    line each.

    Example: monosem steer sweep --latents 21 --words moon sun --prompts "At night" "Far above" --retain @plain.txt
    """

    latents: tuple[int, ...]
    """Their numbers."""
    words: tuple[str, ...]
    """The concept's."""
    prompts: tuple[str, ...]
    """What is continued."""
    retain: tuple[str, ...]
    """Texts that should be left alone."""
    op: str = "clamp"
    """clamp, add, scale, ablate or project_out."""
    strengths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """Multiples of each latent's q99.9; of scale, factors."""
    tiers: tuple[str, ...] = ("always",)
    """always, input, token."""
    condition: tuple[int, ...] = ()
    """Latents one of which has to fire; none for those that are edited."""
    above: tuple[float, ...] = (0.0,)
    """How high they have to be, in multiples of their q99.9."""
    decode: str = "delta"
    """delta or full."""
    concept_texts: tuple[str, ...] = ()
    """Texts with the concept, for a control along the mean difference to the retained ones."""
    instruction: str = ""
    """A control: put before the prompts, with nothing edited."""
    n_draws: int = 5
    """Of each random control."""
    n_seeds: int = 2
    """Continuations of each prompt; 0 measures the effect and the cost on given texts alone, many times as fast."""
    n_tokens: int = 24
    """Of a continuation."""
    temperature: float = 1.0
    """0 is greedy."""
    seed: int = 0
    """Of controls and continuations."""
    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    out: Path = Path("steering.html")
    """The page to write: it is replaced if it is there."""


def main(arguments: Sequence[str]) -> None:
    """Parse, measure, write the page and print its main table."""
    args = parse(Args, "steer sweep", arguments)
    from app.interpretation.job import write_page
    from app.sweeping.view import COLUMNS, page, remarks, rows
    from autointerp.sweep import SweepConfig, sweep

    edit = SteerConfig(latents=args.latents, op=args.op, condition=args.condition, above=args.above, decode=args.decode)
    texts = {name: lines_of(name, getattr(args, name)) for name in ("words", "prompts", "retain", "concept_texts")}
    cfg = checked(SweepConfig, args, edit=edit, **texts)
    run = sweep(cfg, find_run(args.root, args.index_run, "index"), args.root, progress)
    print_rows(pd.DataFrame(rows(run.results), columns=list(COLUMNS)), "table")
    for line in remarks(run.results):
        print(printable(line))
    write_page(page(run), args.out)
    print(f"wrote sweep {run.id} with plots, texts and the same in Python, as {args.out}")
