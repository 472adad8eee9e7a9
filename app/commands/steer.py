"""`monosem steer`."""

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from app.arguments import RootArgs, parse
from app.log import console, printable
from autointerp.steer_config import SteerConfig
from store.errors import UsageError

OTHERS = {"sweep": "app.sweeping.sweep_command", "concept": "app.sweeping.concept_command"}
"""What else there is, and where."""


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs, SteerConfig):
    """Continue a prompt with latents edited, and without, from one seed.

    `monosem steer sweep` measures what that does and what it costs, beside controls; `monosem steer concept` finds
    latents that stand for a concept. Both have a --help of their own.

    Example: monosem steer "Once upon a time" --latents 21 --strength 2

    Example: monosem steer "Tell me a story." --latents 21 35 --op ablate --when token --chat

    Example: monosem steer "Once upon a time" --latents 21 --also '{"latents": [35], "op": "ablate"}'
    """

    causal: Annotated[bool, tyro.conf.Suppress] = True
    prompt: tyro.conf.Positional[str]
    """What to go on from."""
    also: tuple[str, ...] = ()
    """Further edits, after those of the settings above: each the settings of one as JSON, such as
    '{"latents": [35], "op": "ablate", "when": "token"}'."""
    n_tokens: int = 40
    """New tokens at most."""
    temperature: float = 0.7
    """0 is greedy."""
    seed: int = 0
    """Of the sampling, the same with edits and without."""
    chat: bool = False
    """Put the prompt through the model's chat template."""
    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""


def main(arguments: Sequence[str]) -> None:
    """Parse, generate twice and print both; or go on to what is asked for by name."""
    if arguments and arguments[0] in OTHERS:
        importlib.import_module(OTHERS[arguments[0]]).main(arguments[1:])
        return
    args = parse(Args, "steer", arguments)
    from app.arguments import checked
    from app.workbench import Workbench

    bench = Workbench.open(args.root, args.index_run)
    edits = [checked(SteerConfig, args), *map(_also, args.also)]
    found = bench.steer(
        args.prompt, edits, n_tokens=args.n_tokens, temperature=args.temperature, seed=args.seed, chat=args.chat
    )
    read = (*found.prompt_tokens, *found.steered_tokens)[: len(found.altered)]
    where = "".join(f"[{token}]" if changed else token for token, changed in zip(read, found.altered, strict=True))
    length = "" if found.share_of_norm is None else f", by {found.share_of_norm:.0%} of its length on average"
    print(f"{found.told}; seed {found.seed}")
    print(f"changed on {sum(found.altered):,} of {len(found.altered):,} tokens that were read{length}")
    for name, text in (("clean", found.clean), ("steered", found.steered), ("changed in brackets", where)):
        console.rule(name, align="left", style="dim")
        print(printable(text))


def _also(given: str) -> SteerConfig:
    """An edit from JSON.

    Raises:
        UsageError: it is none.
    """
    from app.generator.plain import edits

    try:
        (edit,) = edits([json.loads(given)])
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"--also {given}: {error}: give the settings of one edit as JSON") from error
    lists = (edit.condition, edit.above, *((edit.latents, edit.strength) if isinstance(edit, SteerConfig) else ()))
    if not all(isinstance(each, tuple) for each in lists):
        raise UsageError(f"--also {given}: latents, strength, condition and above are lists, such as [35]")
    if not isinstance(edit, SteerConfig):
        raise UsageError(f"--also {given}: the command line takes edits of latents only")
    return edit
