"""What the terminal says of explaining and scoring: what it would take, what it took, and what came of it."""

import shlex
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pandas as pd

from app.estimates import figure, interval
from app.rows import print_rows
from autointerp.arms import EXPLANATION, SHUFFLED
from autointerp.forecast import Count, Forecast
from autointerp.llm.metered import UNITS, told
from store.ledger import Ledger, Spend
from store.replies import replies_file
from store.run import Run

UNKNOWN = "not known"


def print_forecast(found: Forecast) -> None:
    """Print what each run would send, in all, and which caps would stop it."""
    rows = [(stage.name, f"{stage.n_latents:,}", stage.count) for stage in found.stages]
    table = [[name, n, *_amounts(found, count)] for name, n, count in [*rows, ("in all", "", found.total)]]
    print(f"dry run with {found.model}: nothing was sent")
    columns = ["", "latents", "calls", "kept replies", "tokens in", "tokens out", "cost", "time"]
    print_rows(pd.DataFrame(table, columns=columns), "table")
    for line in _remarks(found):
        print(line)


def print_scores(explanations: Run, scores: Sequence[Run]) -> None:
    """Print the runs, a line for each scorer with the score above its null, and what was spent."""
    n_left = sum(explanations.results["n_unexplained"].values())
    left = f", {n_left:,} could not be ({_reasons(explanations)})" if n_left else ""
    how = explanations.config["explainer"]
    print(f"explanations {explanations.id}   {explanations.results['n_explained']:,} explained by {how}{left}")
    if not explanations.results["n_explained"]:
        print("nothing to score: choose latents that fire in more contexts, or another --explainer")
        return
    columns = ["scorer", "run", "score", "95%", f"above {SHUFFLED}", "95%", "p", "latents", "unread"]
    print_rows(pd.DataFrame([_scored(run) for run in scores], columns=columns), "table")
    print(f"language models, over all starts of these runs: {_spent([explanations, *scores])}")
    print(f"look closer: monosem report --root {shlex.quote(str(explanations.root))}")


def _amounts(found: Forecast, count: Count) -> list[str]:
    usd, seconds = found.usd(count), found.seconds(count)
    counts = [f"{round(value):,}" for value in (count.n_calls, count.n_kept, count.n_tokens_in, count.n_tokens_out)]
    cost = UNKNOWN if usd is None else f"${usd:,.4f}"
    return [*counts, cost, UNKNOWN if seconds is None else str(timedelta(seconds=round(seconds)))]


def _remarks(found: Forecast) -> Iterator[str]:
    n_rehearsed = max(stage.n_rehearsed for stage in found.stages)
    if any(stage.n_latents > stage.n_rehearsed > 0 for stage in found.stages):
        yield f"counted on {n_rehearsed} latents and multiplied; answers that cannot be read are asked for once more"
    if found.total.n_calls and found.llm.price.nano_usd(1, 1) is None:
        yield "for the cost, give --usd-per-million-in and --usd-per-million-out"
    if found.total.n_calls and found.seconds_per_call is None:
        yield "the time is known once some calls of this model were answered"
    for stage, cap, needed in found.crossed():
        write = UNITS[cap.unit]
        yield (
            f"{stage} takes about {write(round(needed))} and max_{cap.unit}_per_{cap.scope} allows {write(cap.most)}: "
            "it would stop there, and go on when that is raised"
        )


def _reasons(explanations: Run) -> str:
    return ", ".join(f"{reason}: {n:,}" for reason, n in explanations.results["n_unexplained"].items())


def _scored(run: Run) -> list[str]:
    own, above = run.results[EXPLANATION], run.results["above"].get(SHUFFLED)
    null = ["", "", ""]
    if above is not None:
        difference = figure(above["difference"], signed=True)
        null = [difference, interval(above["interval"]), figure(above["p_value"], digits=4)]
    share = f"{run.results['n_unparsed']:,} of {run.results['n_judged'] + run.results['n_unparsed']:,}"
    return [
        run.config["scorer"],
        run.id,
        figure(own["mean"]),
        interval(own["interval"]),
        *null,
        f"{own['n_scored']:,}",
        share,
    ]


def _spent(runs: Sequence[Run]) -> str:
    """By the ledger, on the accounts of these runs."""
    ledger = Ledger(replies_file(runs[0].root))
    spent = [ledger.spent(run.id) for run in runs]
    return told(Spend(*map(sum, zip(*spent, strict=True)))) if any(each.n_calls for each in spent) else "none asked"
