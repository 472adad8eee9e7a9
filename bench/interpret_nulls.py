"""Is another latent's explanation at chance? Every scorer that reads explanations, on 1,000 simulated latents.

Run from anywhere: `python bench/interpret_nulls.py` (`--quick` to see that it runs); four minutes, no GPU, no model.
Judge, reader, embedder and the model that is steered are simulated (`bench/planted_latents.py`): they read the
explanation, and are right of 70% of what it is true of and wrong of 20% of the rest. Each latent is scored with its own
explanation and, as the `shuffled` null, with that of another latent whose word stands in as many of its active contexts
as of its silent ones. Chance is what the score says of itself; the 95% interval of the mean is clustered by latent. Ten
intervals hold ten chances at once in 60% of runs, so the figure asks for the lowest p-value by Holm. `intruder` and
`example_embedding` read no explanation and have no such null.
"""

import argparse
import asyncio
from typing import Any, NamedTuple

import numpy as np

from autointerp.latent import Score
from autointerp.llm.planted import Planted
from autointerp.scorers import SCORERS
from autointerp.statistics.across import clustered_mean, holm, sign_flip_p
from bench.harness import Figure, main, write
from bench.planted_latents import FAMILY, explained, planted_tools, shuffled, trial

N_LATENTS, N_QUICK, N_EACH = 1000, 4 * FAMILY, 24
TPR, FPR = 0.7, 0.2
ALPHA = 0.05


class Null(NamedTuple):
    """One scorer's shuffled null over latents."""

    scorer: str
    chance: float
    """As the scorer's scores say."""
    mean: float
    low: float
    high: float
    """95%, clustered by latent."""
    covers: bool
    """Whether the interval holds chance."""
    p_value: float
    """That values are as likely above chance as below."""
    own: float
    """Mean of the latents' own explanations: what reading is worth."""
    n_latents: int
    n_missing: int
    """Latents without a value."""


def measure() -> bool:
    """Every scorer on the same latents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small: figures mean nothing")
    args = parser.parse_args()
    n_latents = N_QUICK if args.quick else N_LATENTS
    rows = [null_of(name, *asyncio.run(both_arms(name, n_latents))) for name in reading()]
    adjusted = holm([row.p_value for row in rows])
    figures = [figure for row in rows for figure in figures_of(row)]
    figures.append(
        Figure("scorers whose 95% interval holds chance", sum(row.covers for row in rows), f"of {len(rows)}")
    )
    figures.append(Figure("lowest p-value of a null away from chance, by Holm", min(adjusted), "", f">= {ALPHA}"))
    settings: dict[str, Any] = {"n_latents": n_latents, "n_each": N_EACH, "tpr": TPR, "fpr": FPR, "quick": args.quick}
    unread = {name: "reads no explanation" for name in SCORERS if name not in reading()}
    return write("interpret_nulls", figures, **settings, rows=[row._asdict() for row in rows], left_out=unread)


def reading() -> list[str]:
    """The scorers that read explanations."""
    tools = planted_tools(Planted(), 1)
    return [name for name, open_scorer in SCORERS.items() if open_scorer(tools).reads_explanation]


async def both_arms(name: str, n_latents: int) -> tuple[list[Score], list[Score]]:
    """Every latent's score with its own explanation, and with another's."""
    scorer = SCORERS[name](planted_tools(Planted(tpr=TPR, fpr=FPR), n_latents))
    own, null = [], []
    for latent, other in enumerate(shuffled(n_latents)):
        given = trial(latent, n_latents, N_EACH)
        own.append(await scorer(explained(latent), given))
        null.append(await scorer(explained(other), given))
    return own, null


def null_of(name: str, own: list[Score], null: list[Score]) -> Null:
    """What the null is, beside what the latents' own explanations get.

    Raises:
        ValueError: scores of one scorer state different chances, or none has a value.
    """
    (chance,) = {score.chance for score in null}
    values = [score.value for score in null]
    mean = clustered_mean(values, range(len(values)))
    if mean.value is None or mean.interval is None:
        raise ValueError(f"{name}: no null has a value: simulate more contexts")
    low, high = mean.interval
    away = np.array([value for value in values if value is not None]) - chance
    own_mean = clustered_mean([score.value for score in own], range(len(own))).value or 0.0
    covers = low <= chance <= high
    return Null(name, chance, mean.value, low, high, covers, sign_flip_p(away), own_mean, mean.n_rows, mean.n_missing)


def figures_of(row: Null) -> list[Figure]:
    """Of one scorer."""
    called = f"{row.scorer}, chance {row.chance:.3g}"
    return [
        Figure(f"{called}: mean of the shuffled null", row.mean, ""),
        Figure(f"{called}: its 95% interval from", row.low, ""),
        Figure(f"{called}: its 95% interval to", row.high, ""),
        Figure(f"{called}: mean of own explanations", row.own, ""),
    ]


if __name__ == "__main__":
    main(measure)
