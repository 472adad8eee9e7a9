"""One latent across dictionaries: its partners, what it is split into and what absorbs it, read from matchings."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from store.errors import UsageError
from store.matching import SIDES, Matching
from store.run import Run, list_runs

PARTNERS = """
SELECT b.measure, b.other, b.value, t.threshold, b.value > t.threshold AS above_chance, b.mutual,
       f.density, f.explanation
FROM best b LEFT JOIN (SELECT measure, max(threshold) AS threshold FROM thresholds GROUP BY measure) t USING (measure)
LEFT JOIN {elsewhere} f ON f.latent = b.other
WHERE b.side = ? AND b.latent = ? ORDER BY b.measure
"""
CHILDREN = """
SELECT c.latent AS other, c.role, c.share, c.implies, c.parent_silent, c.decoder, m.coverage, m.largest, f.explanation
FROM children c JOIN families m USING (side, parent) LEFT JOIN {elsewhere} f ON f.latent = c.latent
WHERE c.side = ? AND c.parent = ? ORDER BY c.role DESC, c.share DESC
"""
PARENTS = """
SELECT c.parent AS other, c.role, c.share, c.implies, c.parent_silent, c.decoder, m.n_children, m.coverage,
       f.explanation
FROM children c JOIN families m USING (side, parent) LEFT JOIN {elsewhere} f ON f.latent = c.parent
WHERE c.side != ? AND c.latent = ? ORDER BY c.role DESC, c.share DESC
"""
NOTHING = "(SELECT NULL::INTEGER AS latent, NULL::DOUBLE AS density, NULL::VARCHAR AS explanation)"


@dataclass(frozen=True)
class Relatives:
    """What one matching says of a latent; `other` is always a latent of the other dictionary."""

    matching: Run
    side: str
    """Which side of it the latent is on."""
    other_index: str
    """Id of the other dictionary's index."""
    partners: pd.DataFrame
    """`measure other value threshold above_chance mutual density explanation`: the best by each measure."""
    children: pd.DataFrame
    """`other role share implies parent_silent decoder coverage largest explanation`: it is a parent of these."""
    parents: pd.DataFrame
    """The same of latents whose child, or absorber, it is."""


def relatives(index: Run, latent: int, timeout_s: float | None = None) -> Iterator[Relatives]:
    """What every matching of an index says of one of its latents, the newest first.

    Args:
        index: the run.
        latent: of it.
        timeout_s: after which a query is stopped.

    Raises:
        UsageError: a matching is damaged, once it is reached.
    """
    for run in reversed(list_runs(index.root, "matching")):
        for side in SIDES:
            if run.inputs.get(side) == index.id:
                other = SIDES[1 - SIDES.index(side)]
                yield _told(Matching(run.folder, timeout_s), side, other, latent)


def _told(matching: Matching, side: str, other: str, latent: int) -> Relatives:
    def ask(query: str) -> pd.DataFrame:
        try:
            return matching.sql(query.format(elsewhere=f"{other}.features"), [side, latent])
        except UsageError:
            # The other index is no longer there: what the matching itself says stays.
            return matching.sql(query.format(elsewhere=NOTHING), [side, latent])

    return Relatives(matching.run, side, matching.run.inputs[other], ask(PARTNERS), ask(CHILDREN), ask(PARENTS))
