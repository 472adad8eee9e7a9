"""What a report of an interpretation says, as tables: rows of `report_queries`, and the statistics of those rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autointerp.latent import ACTIVE
from autointerp.report_queries import PER_LATENT, QUERIES, query
from autointerp.statistics import (
    Comparison,
    Mean,
    clustered_mean,
    compare,
    correlated,
    correlation_matrix,
    holm,
    wilson,
)
from autointerp.statistics.agreement import Agreement, Bin
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.run import Run, list_runs

Rows = Sequence[Mapping[str, Any]]
N_DECILES = 10
"""Bins of a calibration curve."""


@dataclass(frozen=True)
class Subject:
    """What a report is about: one run of explanations, and every run that scored it."""

    explanations: Run
    scores: tuple[Run, ...]

    @property
    def labels(self) -> dict[str, str]:
        """A name for each run of scores, by id: its scorer, and the id's start where two runs have the same."""
        named = sorted((run.config["scorer"], run.id) for run in self.scores)
        names = [name for name, _ in named]
        return {run: name if names.count(name) == 1 else f"{name} {run[:6]}" for name, run in named}

    def query(self, name: str, latents: Sequence[int] = ()) -> str:
        """The query `name` about it."""
        return query(name, self.explanations.id, [run.id for run in self.scores], latents)


def subject(index: FeatureIndex, explanations: str = "latest") -> Subject:
    """A run of explanations of `index`, by its id or the start of one, with its scores; `latest` is the newest scored.

    Raises:
        UsageError: there is none, or several begin like that.
    """
    root, own = index.run.root, index.run.id
    runs = [run for run in list_runs(root, "explanations") if run.inputs.get("index") == own]
    scores = [run for run in list_runs(root, "scores") if run.inputs.get("index") == own]
    by = {run.id: tuple(each for each in scores if each.inputs["explanations"] == run.id) for run in runs}
    if explanations == "latest":
        found = [run for run in runs if by[run.id]][-1:]
    else:
        found = [run for run in runs if run.id.startswith(explanations)]
    if len(found) != 1:
        raise UsageError(_none_of(explanations, [run.id for run in found], own))
    if not by[found[0].id]:
        raise UsageError(f"explanations {found[0].id} have no scores: run `monosem score`")
    return Subject(found[0], by[found[0].id])


def _none_of(asked: str, found: Sequence[str], index: str) -> str:
    if found:
        return f"explanations '{asked}' may be {' or '.join(found)}: give more of the id"
    if asked == "latest":
        return f"no scored explanations of index {index}: run `monosem interpret`"
    return f"no explanations '{asked}' of index {index}: choose one that `monosem show` lists, or `latest`"


@dataclass(frozen=True)
class Arm:
    """What one arm of a scorer got."""

    run: str
    """Of the scores."""
    arm: str
    mean: Mean
    chance: float


@dataclass(frozen=True)
class Above:
    """How much more the explanations got than one null."""

    run: str
    null: str
    of: Comparison
    adjusted: float | None
    """Its p-value, adjusted by Holm's method for all comparisons of the report."""


@dataclass(frozen=True)
class Density:
    """Density and score of one scorer's latents."""

    latents: Sequence[int]
    density: Sequence[float]
    value: Sequence[float]
    correlation: Agreement
    """Spearman's."""


@dataclass(frozen=True)
class Figures:
    """All of a report but single latents. Rows have the columns of the query of that name."""

    overview: Mapping[str, Any]
    denominators: Rows
    unexplained: Rows
    arms: Sequence[Arm]
    above: Sequence[Above]
    histogram: Rows
    density: Mapping[str, Density]
    agreement: Mapping[tuple[str, str], Agreement]
    """By two ids of runs, each pair once."""
    unread: Rows
    metrics: Rows
    leakage: Rows
    overlap: Rows
    calls: Rows
    calibration: Mapping[str, Sequence[Bin]]
    """By run; of those alone whose judge gave probabilities."""
    chosen: Rows


def figures(index: FeatureIndex, of: Subject) -> Figures:
    """The figures of a report, all of one version of the index."""
    names = [name for name in QUERIES if name not in PER_LATENT]
    tables = index.arrows([of.query(name) for name in names])
    rows: dict[str, Rows] = {name: table.to_pylist() for name, table in zip(names, tables, strict=True)}
    return Figures(
        overview=rows["overview"][0],
        denominators=rows["denominators"],
        unexplained=rows["unexplained"],
        arms=[_arm(row) for row in rows["means"]],
        above=_above(rows["above"]),
        histogram=rows["histogram"],
        density={run: _density(some) for run, some in by_run(rows["density"]).items()},
        agreement=_agreement(rows["agreement"]),
        unread=rows["unread"],
        metrics=rows["metrics"],
        leakage=rows["leakage"],
        overlap=rows["overlap"],
        calls=rows["calls"],
        calibration={run: [_bin(row) for row in some] for run, some in by_run(rows["calibration"]).items()},
        chosen=rows["chosen"],
    )


def by_run(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of each run of scores, in their order: two runs of one scorer are never pooled."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["run"], []).append(row)
    return found


def _arm(row: Mapping[str, Any]) -> Arm:
    return Arm(row["run"], row["arm"], clustered_mean(row["own"], row["together"]), row["chance"])


def _above(rows: Rows) -> list[Above]:
    found = [
        compare(
            dict(zip(row["latents"], row["own"], strict=True)),
            dict(zip(row["latents"], row["nulls"], strict=True)),
            groups=dict(zip(row["latents"], row["together"], strict=True)),
        )
        for row in rows
    ]
    adjusted = iter(holm([each.p_value for each in found if each.p_value is not None]))
    return [
        Above(row["run"], row["null_arm"], each, None if each.p_value is None else next(adjusted))
        for row, each in zip(rows, found, strict=True)
    ]


def _density(rows: Rows) -> Density:
    latents, density, value = ([row[name] for row in rows] for name in ("latent", "density", "value"))
    return Density(latents, density, value, correlated(density, value))


def _agreement(rows: Rows) -> dict[tuple[str, str], Agreement]:
    columns = {run: {row["latent"]: row["value"] for row in some} for run, some in by_run(rows).items()}
    return correlation_matrix(columns)


def _bin(row: Mapping[str, Any]) -> Bin:
    low, high = wilson(row["n_true"], row["n"])
    at = row["bin"] / N_DECILES
    return Bin(at, at + 1 / N_DECILES, row["n"], row["mean_probability"], row["share_true"], (float(low), float(high)))


@dataclass(frozen=True)
class Span:
    """A piece of a context."""

    text: str
    activation: float | None
    """None where the latent does not fire, or is not known to."""


@dataclass(frozen=True)
class Example:
    """One question about a latent."""

    run: str
    verdict: str
    """`wrong`, `right` or `not read`."""
    n: int
    """Questions with that verdict: not all are shown."""
    row: Mapping[str, Any]
    """As the query `examples` has it."""
    spans: Sequence[Span]
    """Its text."""


@dataclass(frozen=True)
class LatentEvidence:
    """What an explanation of one latent rests on."""

    text: Mapping[str, Any]
    """As the query `texts` has it."""
    values: Rows
    """Its scores and nulls, as the query `values` has them."""
    examples: Sequence[Example]


def evidence(index: FeatureIndex, of: Subject, latents: Sequence[int]) -> list[LatentEvidence]:
    """What the explanations of some latents rest on, in their order.

    Raises:
        UsageError: one is not explained by the run.
    """
    texts, values, examples, firings = (
        index.arrow(of.query(name, latents)).to_pylist() if name != "firings" or _has_text(index) else []
        for name in PER_LATENT
    )
    by_latent = {row["latent"]: row for row in texts}
    for latent in latents:
        if latent not in by_latent:
            raise UsageError(f"latent {latent} has no explanation in run {of.explanations.id}: choose others")
    fires = {(row["latent"], row["doc_id"]): row for row in firings}
    return [
        LatentEvidence(
            by_latent[latent],
            [row for row in values if row["latent"] == latent],
            [_example(row, fires.get((latent, row["doc_id"]))) for row in examples if row["latent"] == latent],
        )
        for latent in latents
    ]


def _has_text(index: FeatureIndex) -> bool:
    """Whether the documents are still there to be marked."""
    try:
        return index.harvest is not None
    except UsageError:
        return False


def _example(row: Mapping[str, Any], fires: Mapping[str, Any] | None) -> Example:
    return Example(row["run"], row["verdict"], row["n"], row, spans(row["text"], fires, active=row["kind"] == ACTIVE))


def spans(text: str, fires: Mapping[str, Any] | None, *, active: bool) -> Sequence[Span]:
    """A context in pieces, each place marked where the latent fires; whole and unmarked where that cannot be told.

    Args:
        text: as it was judged.
        fires: a row of the query `firings`. A text that is not in the document has no known place, nor has one that is
            there several times with different firings.
        active: whether the latent is known to fire in it.
    """
    if fires is None or not text:
        return [Span(text, None)]
    places = list(zip(fires["starts"], fires["stops"], fires["activations"], strict=True))
    ways = {tuple(_cut(text, at, places)) for at in _found(text, fires["document"])}
    possible = [way for way in ways if not active or any(span.activation is not None for span in way)]
    return possible[0] if len(possible) == 1 else [Span(text, None)]


def _found(text: str, document: str) -> Iterable[int]:
    at = document.find(text)
    while at >= 0:
        yield at
        at = document.find(text, at + 1)


def _cut(text: str, at: int, places: Iterable[tuple[int, int, float]]) -> Iterable[Span]:
    done = 0
    for start, stop, value in sorted(places):
        start, stop = max(start - at, done), min(stop - at, len(text))
        if start < stop:
            if done < start:
                yield Span(text[done:start], None)
            yield Span(text[start:stop], value)
            done = stop
    if done < len(text):
        yield Span(text[done:], None)
