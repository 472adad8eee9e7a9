"""What the page of an interpretation shows, as plain values: sections of text, tables and plots, and their queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from app.cards import number
from app.estimates import NOT_KNOWN, figure, interval
from app.interpretation import plots
from autointerp.arms import EXPLANATION
from autointerp.leakage import LEAKS
from autointerp.report_queries import QUERIES
from autointerp.reporting import Above, Arm, Figures, LatentEvidence, Rows, Subject, by_run
from store.feature_index import FeatureIndex

FATES = ("dead", "not_chosen", "unexplained", "skipped", "unparsed", "scored")
"""Columns of the query `denominators` that add up to the width."""


@dataclass(frozen=True)
class Table:
    """Cells are text: the first column names the row, the others are figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Asked:
    """A query, as anybody may ask it again."""

    name: str
    about: str
    sql: str


@dataclass(frozen=True)
class Section:
    """Figures that belong together."""

    id: str
    title: str
    about: str
    queries: Sequence[Asked]
    tables: Sequence[Table] = ()
    plots: Sequence[go.Figure] = ()
    wide: bool = False
    """Whether its plots take the whole width."""
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    described: Mapping[str, str]
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    latents: Sequence[LatentEvidence]
    labels: Mapping[str, str]
    latent_queries: Sequence[Asked] = field(default=())
    over: str = ""
    """What `monosem sql` has to be told beside a query."""


def page(index: FeatureIndex, of: Subject, found: Figures, latents: Sequence[LatentEvidence]) -> Page:
    """The report."""
    config = of.explanations.config
    shown = [each.text["latent"] for each in latents]
    return Page(
        title=f"Interpretation by {config.get('explainer', of.explanations.id)}",
        described={
            "explanations": f"run {of.explanations.id}, {of.explanations.manifest['finished_at']}",
            "scores": ", ".join(f"{label} (run {run})" for run, label in of.labels.items()),
            "index": f"run {index.run.id}, version {index.version()}",
        },
        tiles=_tiles(of, found),
        sections=[section for make in SECTIONS if (section := make(of, found)) is not None],
        latents=latents,
        labels=of.labels,
        latent_queries=_queries(of, ("chosen", "texts", "values", "examples", "firings"), shown),
    )


def _tiles(of: Subject, found: Figures) -> list[tuple[str, str]]:
    overview = found.overview
    return [
        ("latents", counted(overview["width"])),
        ("explained", counted(overview["n_explained"])),
        ("scored by any scorer", counted(overview["n_scored"])),
        ("scorers", counted(len(of.scores))),
        ("questions asked", counted(overview["n_examples"])),
        ("tokens that count", counted(overview["n_tokens"])),
    ]


def _queries(of: Subject, names: Sequence[str], latents: Sequence[int] = ()) -> list[Asked]:
    return [Asked(name, QUERIES[name].about, of.query(name, latents)) for name in names]


def _fates(of: Subject, found: Figures) -> Section:
    columns = ("scorer", *(name.replace("_", " ") for name in FATES), "latents in all")
    rows = [
        [of.labels[row["run"]], *(counted(row[name]) for name in FATES), counted(row["width"])]
        for row in found.denominators
    ]
    why = Table(
        ("why unexplained", "latents"), [[row["reason"], counted(row["n_latents"])] for row in found.unexplained]
    )
    return Section(
        "denominators",
        "What became of every latent",
        "Each latent of the dictionary is in one column: they add up to its width. Of the explained ones without "
        "a score, those with answers that could not be read are unparsed; of the skipped, nothing could be asked that "
        "makes a score.",
        _queries(of, ("overview", "denominators", "unexplained")),
        [Table(columns, rows), *([why] if why.rows else [])],
    )


def _above(of: Subject, found: Figures) -> Section:
    return Section(
        "above",
        "Score minus null",
        "What explanations got, and what they got above words that know nothing, or little, of the latent. Brackets "
        "are 95 % intervals over latents. An explanation that is no better than its nulls says nothing of the latent, "
        "however high its score is above chance.",
        _queries(of, ("means", "above")),
        [Table(ABOVE_COLUMNS, above_rows(of, found))],
        [plots.above_nulls(found.above, of.labels)]
        if any(each.of.difference is not None for each in found.above)
        else [],
        wide=True,
    )


ABOVE_COLUMNS = ("scorer", "arm", "mean", "95 %", "chance", "latents", "minus null", "95 %", "p", "p (Holm)", "pairs")


def above_rows(of: Subject, found: Figures) -> list[list[str]]:
    """A row an arm, the explanations first, then each null and how far they are above it."""
    by = {(each.run, each.null): each for each in found.above}
    return [_above_row(of.labels[arm.run], arm, by.get((arm.run, arm.arm))) for arm in found.arms]


def _above_row(label: str, arm: Arm, above: Above | None) -> list[str]:
    row = [label, arm.arm, figure(arm.mean.value), interval(arm.mean.interval), number(arm.chance)]
    row.append(counted(arm.mean.n_rows))
    if above is None:
        return [*row, "", "", "", "", ""]
    of = above.of
    return [
        *row,
        figure(of.difference, signed=True),
        interval(of.interval),
        figure(of.p_value, digits=4),
        figure(above.adjusted, digits=4),
        counted(of.n_latents),
    ]


def _histograms(of: Subject, found: Figures) -> Section | None:
    shown = [plots.histogram(of.labels[run], rows) for run, rows in by_run(found.histogram).items()]
    if not shown:
        return None
    about = "Bars are scores of the explanations, lines those of the nulls: where a line covers the bars, the scorer "
    about += "cannot tell the explanation from that null. Point at one for its counts."
    return Section("histograms", "Scores of every scorer", about, _queries(of, ("histogram",)), (), shown)


def _density(of: Subject, found: Figures) -> Section | None:
    shown = [plots.density_against_score(of.labels[run], each) for run, each in found.density.items()]
    if not shown:
        return None
    rows = [
        [
            of.labels[run],
            figure(each.correlation.value),
            interval(each.correlation.interval),
            counted(each.correlation.n),
        ]
        for run, each in found.density.items()
    ]
    cut = [
        f"{of.labels[run]}: {plots.MOST_POINTS:,} of {len(each.latents):,} latents are drawn, at random"
        for run, each in found.density.items()
        if len(each.latents) > plots.MOST_POINTS
    ]
    return Section(
        "density",
        "Density against score",
        "Whether latents that fire often are scored differently. Dead latents have no density, nor a score.",
        _queries(of, ("density",)),
        [Table(("scorer", "Spearman", "95 %", "latents"), rows)],
        shown,
        remarks=cut,
    )


def _agreement(of: Subject, found: Figures) -> Section | None:
    if not found.agreement:
        return None
    named = sorted((*sorted(of.labels[run] for run in pair), each) for pair, each in found.agreement.items())
    rows = [
        [f"{one} and {other}", figure(each.value), interval(each.interval), counted(each.n)]
        for one, other, each in named
    ]
    return Section(
        "agreement",
        "Whether scorers agree",
        "Spearman's correlation of two scorers over the latents that both have scored. A dash is one that is not "
        "defined: too few latents, or a scorer that gives all the same.",
        _queries(of, ("agreement",)),
        [Table(("scorers", "Spearman", "95 %", "latents"), rows)],
        [plots.agreement_matrix(found.agreement, of.labels)],
        wide=True,
    )


def _unread(of: Subject, found: Figures) -> Section:
    columns = (
        "scorer",
        "arm",
        "read",
        "not read",
        "share",
        "asked twice",
        "all wrong",
        "mean",
        "all right",
        "no value",
    )
    rows = [
        [
            of.labels[row["run"]],
            row["arm"],
            counted(row["n_read"]),
            counted(row["n_unread"]),
            NOT_KNOWN if row["share_unread"] is None else f"{row['share_unread']:.2%}",
            counted(row["n_asked_twice"]),
            *(figure(row[name]) for name in ("worst", "mean", "best")),
            counted(row["n_without_value"]),
        ]
        for row in found.unread
    ]
    return Section(
        "unread",
        "Answers that could not be read",
        "They are asked for once more, then counted: neither dropped nor taken for wrong. Between the two bounds lies "
        "whatever they would have made of the mean.",
        _queries(of, ("unread",)),
        [Table(columns, rows)],
    )


def _metrics(of: Subject, found: Figures) -> Section | None:
    runs = [run for run in of.labels if any(row["run"] == run for row in found.metrics)]
    if not runs:
        return None
    by = {(row["metric"], row["run"]): row for row in found.metrics}
    names = dict.fromkeys(row["metric"] for row in found.metrics)
    rows = [[name.replace("_", " "), *(_metric(by.get((name, run))) for run in runs)] for name in names]
    return Section(
        "metrics",
        "Other figures of the same answers",
        "Means over the latents of which it is defined, whose number is in brackets; after the bar, of shuffled "
        "explanations. Precision at the base rate is what a yes is worth where the latent is as rare as it is.",
        _queries(of, ("metrics",)),
        [Table(("figure", *(of.labels[run] for run in runs)), rows)],
    )


def _metric(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    shuffled = "" if row["shuffled"] is None else f" | {figure(row['shuffled'])}"
    return f"{figure(row['mean'])} ({counted(row['n_latents'])}){shuffled}"


def _leakage(of: Subject, found: Figures) -> Section:
    rows = [[str(row["latent"]), f"{row['quoted']:.0%}", row["text"]] for row in found.leakage]
    n = found.overview["n_explained"]
    overlap = [
        [of.labels[row["run"]], NOT_KNOWN if row["most"] is None else counted(row["most"]), counted(row["n_not_known"])]
        for row in found.overlap
    ]
    return Section(
        "leakage",
        "Leakage",
        f"{len(rows):,} of {n:,} explanations are flagged: {LEAKS:.0%} of their words or more are quoted from what the "
        "explainer saw, so their scores may be of memory. No document may be both explained from and scored on.",
        _queries(of, ("leakage", "overlap")),
        [
            *([Table(("latent", "quoted", "explanation"), rows)] if rows else []),
            Table(("scorer", "documents shared, at most", "scores of which that is not known"), overlap),
        ],
    )


def _calls(of: Subject, found: Figures) -> Section | None:
    if not found.calls:
        return None
    rows = [_call_row((row["model"], row["prompt"] or "none"), [row]) for row in found.calls]
    return Section(
        "calls",
        "What language models were asked",
        "Each reply is counted once, whichever runs used it, and whether or not it was asked for anew.",
        _queries(of, ("calls",)),
        [
            Table(
                ("model", "prompt", "calls", "tokens in", "tokens out", "US$", "calls of no known price"),
                [*rows, _call_row(("all", ""), found.calls)],
            )
        ],
    )


def _call_row(names: Sequence[str], rows: Rows) -> list[str]:
    counts = [sum(row[name] or 0 for row in rows) for name in ("n_calls", "n_tokens_in", "n_tokens_out")]
    prices = [row["usd"] for row in rows if row["usd"] is not None]
    usd = f"{sum(prices):,.4f}" if prices else NOT_KNOWN
    return [*names, *map(counted, counts), usd, counted(sum(row["n_unpriced"] for row in rows))]


def _calibration(of: Subject, found: Figures) -> Section | None:
    if not found.calibration:
        return None
    return Section(
        "calibration",
        "Calibration",
        "Whether what a judge says with a probability of 0.8 is true four times in five. Answers about one latent are "
        "not independent: the intervals are too narrow where latents differ much.",
        _queries(of, ("calibration",)),
        (),
        [plots.calibration_curve(of.labels[run], bins) for run, bins in found.calibration.items()],
    )


SECTIONS = (
    _fates,
    _above,
    _histograms,
    _density,
    _agreement,
    _unread,
    _metrics,
    _calibration,
    _leakage,
    _calls,
)
"""In the order of the page; None where there is nothing of the kind."""


def counted(n: int | float | None) -> str:
    """A count."""
    return NOT_KNOWN if n is None else f"{round(n):,}"


def by_arm(values: Rows) -> list[dict[str, Any]]:
    """A latent's scores with their nulls beside them, a row a run of scores."""
    found = []
    for run, rows in by_run(values).items():
        own = next((row for row in rows if row["arm"] == EXPLANATION), None)
        nulls = [(row["arm"], figure(row["value"])) for row in rows if row["arm"] != EXPLANATION]
        found.append({"run": run, "own": own, "nulls": nulls})
    return found
