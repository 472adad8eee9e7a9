"""Two runs of scores, latent by latent: which explainer, prompt, judge or dictionary did better, and is that chance?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from autointerp.arms import EXPLANATION, NULLS
from autointerp.statistics import Comparison, compare, holm, latents_needed
from autointerp.summary import explained_together
from store.errors import UsageError
from store.index import parts_of
from store.matching import SIDES, Matching
from store.run import Run, find_run

Values = dict[int, float | None]
"""By latent."""


class Row(NamedTuple):
    """One thing that both runs measured."""

    what: str
    """`score`, or `above NULL`: the score less that of the null, latent by latent."""
    a: float | None
    """Mean over the latents that both have."""
    b: float | None
    """Over the same latents."""
    found: Comparison
    """a − b on them."""
    adjusted_p: float | None
    """Holm's, over all rows."""
    n_needed: int | None
    """Latents that find a difference of this size four times in five; None where it is zero or not known."""


@dataclass(frozen=True)
class Compared:
    """What two runs of scores say of each other."""

    rows: tuple[Row, ...]
    paired_by: str
    """What makes a latent of one run the same as a latent of the other."""
    differs: Mapping[str, tuple[Any, Any]]
    """Settings of explanations and scores that are not the same in both: what the difference may come from."""


def compare_scores(a: Run, b: Run, matching: Matching | None = None, measure: str = "correlation") -> Compared:
    """Paired comparison of two runs of one scorer.

    Args:
        a: a run of kind `scores`.
        b: another.
        matching: which latents of their dictionaries are the same, where these are two.
        measure: by which of its one-to-one pairings: `decoder`, `encoder` or `correlation`.

    Raises:
        UsageError: they are one run or of two scorers, nothing says which latents are the same, or no latent has a
            score in both.
    """
    _check(a, b)
    pairs, paired_by = _pairs(a, b, matching, measure)
    of_a, of_b = (_measured(run) for run in (a, b))
    if pairs is not None:
        of_b = {
            what: {pairs[latent]: value for latent, value in values.items() if latent in pairs}
            for what, values in of_b.items()
        }
    shared = [(what, of_a[what], of_b[what]) for what in of_a if what in of_b]
    groups = _together(a, b, pairs)
    found = [compare(*values, groups=groups) for _, *values in shared]
    if not any(each.n_latents for each in found):
        raise UsageError(
            f"no latent has a score in both {a.id} and {b.id}: explain the same ones, by one --seed, --latents or "
            "--select"
        )
    adjusted = iter(holm([each.p_value for each in found if each.p_value is not None]))
    rows = [
        _row(*of, each, None if each.p_value is None else next(adjusted))
        for of, each in zip(shared, found, strict=True)
    ]
    return Compared(tuple(rows), paired_by, differing(a, b))


def _check(a: Run, b: Run) -> None:
    if a.id == b.id:
        raise UsageError(f"{a.id} is named twice, and two runs of scores are compared: `monosem show` lists them")
    scorers = [run.config["scorer"] for run in (a, b)]
    if scorers[0] != scorers[1]:
        raise UsageError(
            f"{a.id} is of the scorer {scorers[0]} and {b.id} of {scorers[1]}, whose values do not compare: name two "
            f"runs of one, or read both next to their nulls in `monosem report`"
        )


def _pairs(a: Run, b: Run, matching: Matching | None, measure: str) -> tuple[dict[int, int] | None, str]:
    """Latent of b to latent of a, or None where their numbers are the same; and what says so."""
    indexes = [run.inputs["index"] for run in (a, b)]
    if matching is None:
        if indexes[0] == indexes[1]:
            return None, f"latent, of index {indexes[0]}"
        saes = [find_run(run.root, run.inputs["index"], "index").inputs.get("sae") for run in (a, b)]
        if saes[0] is not None and saes[0] == saes[1]:
            return None, f"latent, of dictionary {saes[0]}"
        raise UsageError(
            f"{a.id} is of index {indexes[0]} and {b.id} of {indexes[1]}, whose latents are others: pair them by "
            f"`monosem match {indexes[0]} {indexes[1]}` and --matching latest"
        )
    return _matched(indexes, matching, measure), f"matching {matching.run.id}, {measure} above its null"


def _matched(indexes: list[str], matching: Matching, measure: str) -> dict[int, int]:
    sides = [matching.run.inputs[side] for side in SIDES]
    if sorted(sides) != sorted(indexes):
        raise UsageError(
            f"matching {matching.run.id} is of the indexes {' and '.join(sides)}, the scores are of "
            f"{' and '.join(indexes)}: run `monosem match {indexes[0]} {indexes[1]}`"
        )
    query = "SELECT a, b FROM one_to_one WHERE measure = ? AND matched"
    found = matching.sql(query, [measure])
    if found.empty:
        raise UsageError(f"matching {matching.run.id} has no pair by {measure} above its null: name another --measure")
    mine, other = ("a", "b") if sides == indexes else ("b", "a")
    return dict(zip(found[other].tolist(), found[mine].tolist(), strict=True))


def _together(a: Run, b: Run, pairs: dict[int, int] | None) -> dict[int, int]:
    """Groups of latents of a, of which either run explained any two together, or linked by others that it did."""
    links: list[tuple[int, int]] = []
    for run, own in ((a, None), (b, pairs)):
        explained = find_run(run.root, run.inputs["explanations"], "explanations")
        clusters: dict[int, list[int]] = {}
        for latent, medoid in explained_together(explained).items():
            clusters.setdefault(medoid, []).extend([latent] if own is None else [own[latent]] if latent in own else [])
        links += [(members[0], latent) for members in clusters.values() for latent in members]
    latents, ends = np.unique(np.array(links, int).reshape(-1, 2), return_inverse=True)
    ends = ends.reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(latents),) * 2)
    label = connected_components(graph, directed=False)[1]
    return {int(latent): int(latents[np.argmax(label == own)]) for latent, own in zip(latents, label, strict=True)}


def _measured(run: Run) -> dict[str, Values]:
    """The score, and what it is above each null, by latent."""
    table = parts_of(run.folder, "scores", ["latent", "arm", "value"])
    arms: dict[str, Values] = {}
    for row in table.to_pylist():
        arms.setdefault(row["arm"], {})[row["latent"]] = row["value"]
    own = arms.get(EXPLANATION, {})
    return {"score": own, **{f"above {null}": _less(own, arms[null]) for null in NULLS if null in arms}}


def _less(own: Values, null: Values) -> Values:
    both = {latent: (value, null[latent]) for latent, value in own.items() if latent in null}
    return {latent: None if x is None or y is None else x - y for latent, (x, y) in both.items()}


def _row(what: str, a: Values, b: Values, found: Comparison, adjusted_p: float | None) -> Row:
    both = [(x, y) for latent, x in a.items() if x is not None and (y := b.get(latent)) is not None]
    of_a, of_b = np.mean(both, axis=0).tolist() if both else (None, None)
    needed = latents_needed(found.difference, found.spread) if found.difference and found.spread else None
    return Row(what, of_a, of_b, found, adjusted_p, needed)


def differing(a: Run, b: Run) -> dict[str, tuple[Any, Any]]:
    """Settings that two runs of scores, and the explanations they are of, do not share: names with dots, None where a
    run has no such setting."""
    sides = [dict(_settings(run)) for run in (a, b)]
    names = dict.fromkeys(name for side in sides for name in side)
    both = {name: (sides[0].get(name), sides[1].get(name)) for name in names}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def _settings(run: Run) -> Iterator[tuple[str, Any]]:
    explained = find_run(run.root, run.inputs["explanations"], "explanations")
    yield from _flat("explanations", explained.config)
    yield from _flat("scores", run.config)
    yield "index", run.inputs["index"]
    prompts = parts_of(run.folder, "scores", ["prompt"]).column(0).unique().to_pylist()
    yield "scores.prompt", ", ".join(sorted(filter(None, prompts)))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    else:
        yield name, value
