"""`monosem study NAME`."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.arguments import RootArgs, parse
from app.cli import choose
from app.log import progress
from app.summary import print_run
from store.run import start_run
from studies import STUDIES


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Run a published protocol with its controls.

    Example: monosem study superposition --seeds 0 1 2
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    """One repeat each."""


def main(arguments: Sequence[str]) -> None:
    """Choose the study, parse and run it."""
    summaries = {name: (study.__doc__ or "").splitlines()[0] for name, study in STUDIES.items()}
    name = choose("monosem study", (Args.__doc__ or "").strip(), summaries, arguments)
    if name is None:
        return
    args = parse(Args, f"study {name}", arguments[1:])
    with start_run(args.root, "study", {"study": name, "seeds": args.seeds}, {}) as run:
        if not run.finished:
            run.finish(STUDIES[name](args.seeds, progress))
    print_run(run)
