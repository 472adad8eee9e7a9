"""What the page shows, as plain values: sections, tables and plots; the template only lays them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

from app.evaluation.comparable import differences, title
from app.evaluation.evaluated import Compared, Evaluated
from app.evaluation.parts import ACROSS, PARTS
from app.report.compared import Group, groups
from app.report.glossary import metric
from app.report.plots import curve_figures, trade_figures
from app.summary import number
from store.figures import SAE_ARM, Figure, find

NOTHING = Compared()
MANY_ROWS = 30
"""Longer tables are folded."""


@dataclass(frozen=True)
class Cell:
    """One figure."""

    text: str
    interval: str = ""
    note: str = ""
    """On what it is, and how its interval was made."""


@dataclass(frozen=True)
class Row:
    """One metric, or one arm of it."""

    label: str
    help: str
    setting: str
    token_class: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """Figures side by side."""

    columns: Sequence[str]
    rows: Sequence[Row]

    @property
    def has_settings(self) -> bool:
        """Whether any row has one."""
        return any(row.setting for row in self.rows)

    @property
    def has_classes(self) -> bool:
        """Whether any row is of a token class."""
        return any(row.token_class for row in self.rows)

    @property
    def is_long(self) -> bool:
        """Whether it is shown only when asked for; its plots are shown at once."""
        return len(self.rows) > MANY_ROWS


@dataclass(frozen=True)
class Section:
    """One part."""

    name: str
    summary: str
    settings: str
    remarks: Sequence[str]
    """Of dictionaries that it does not apply to, or that it could not measure."""
    table: Table
    plots: Sequence[go.Figure] = field(default=())


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    dictionaries: Sequence[Mapping[str, str]]
    """What each is, in words."""
    differences: Sequence[str]
    """Why figures may not be compared."""
    headline: Sequence[tuple[str, Cell]]
    trades: Sequence[go.Figure]
    sections: Sequence[Section]


def page(evaluated: Sequence[Evaluated], compared: Compared = NOTHING) -> Page:
    """The report on some dictionaries."""
    found = groups(evaluated)
    names = [name for name in PARTS if any(name in one.runs or name in one.failed for one in evaluated)]
    one = len(evaluated) == 1
    return Page(
        title=title(evaluated[0].sae_run) if one else f"{len(evaluated)} dictionaries side by side",
        dictionaries=[_described(item) for item in evaluated],
        differences=differences(evaluated),
        headline=_headline(evaluated[0]) if one else [],
        trades=trade_figures(found),
        sections=[_section(name, evaluated, found) for name in names] + _across(compared),
    )


def _described(one: Evaluated) -> dict[str, str]:
    sae, harvest = one.sae_run, one.activations_run
    results = harvest.results
    return {
        "dictionary": f"{title(sae)}, run {sae.id}",
        "hook point": sae.config["hook_point"],
        "model": harvest.config["harvest"]["model"],
        "token classes measured on" if "origin" in sae.config else "token classes trained on": " + ".join(
            sae.config.get("classes", [])
        )
        or "not known",
        "measured on": f"harvest {harvest.id}: {results['n_tokens']:,} tokens, {results['n_documents_heldout']:,} of "
        f"{results['n_documents']:,} documents held out",
    }


def _headline(one: Evaluated) -> list[tuple[str, Cell]]:
    found = [
        (metric(where["metric"]).label, find(one.measured(name).figures, **where))
        for name, part in PARTS.items()
        for where in part.headline.values()
        if where.get("arm", SAE_ARM) == SAE_ARM
    ]
    return [(label, cell(figure)) for label, figure in found if figure]


def _section(name: str, evaluated: Sequence[Evaluated], found: Sequence[Group]) -> Section:
    remarks = [
        f"{title(one.sae_run)}: {why}"
        for one in evaluated
        if (why := one.not_applicable(name) or one.failed.get(name)) is not None
    ]
    settings = next((one.runs[name].config["settings"] for one in evaluated if name in one.runs), {})
    curves = {title(one.sae_run): curves for one in evaluated if (curves := one.measured(name).curves)}
    columns = {group.name: group.figures(name) for group in found}
    return Section(
        name=name,
        summary=PARTS[name].summary,
        settings=_told(settings),
        remarks=remarks,
        table=of_one(next(iter(columns.values()))) if len(columns) == 1 else by_dictionary(columns),
        plots=curve_figures(curves),
    )


def _across(compared: Compared) -> list[Section]:
    """What was measured of the dictionaries against each other: every pair is a setting."""
    sections = []
    for name, part in ACROSS.items():
        if name not in compared.runs and name not in compared.failed:
            continue
        why = compared.not_applicable(name) or compared.failed.get(name)
        measured = compared.measured(name)
        settings = compared.runs[name].config["settings"] if name in compared.runs else {}
        table, plots = of_one(measured.figures), curve_figures({"": measured.curves})
        sections.append(Section(name, part.summary, _told(settings), [why] if why else [], table, plots))
    return sections


def _told(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def of_one(figures: Sequence[Figure]) -> Table:
    """One dictionary: by control where there are any, else by token class."""
    return by_class(figures) if {f.arm for f in figures} == {SAE_ARM} else by_arm(figures)


def by_class(figures: Sequence[Figure]) -> Table:
    """One dictionary without controls: token classes in columns."""
    classes = sorted(dict.fromkeys(f.token_class for f in figures), key=lambda name: name == "")
    rows: dict[tuple[str, str], dict[str, Figure]] = {}
    for f in figures:
        rows.setdefault((f.metric, f.setting), {})[f.token_class] = f
    names = [_spaced(name) or "the dictionary" for name in classes]
    return Table(names, [_row((*place, ""), [found.get(c) for c in classes]) for place, found in rows.items()])


def by_arm(figures: Sequence[Figure]) -> Table:
    """One dictionary: its own figure first, controls and baselines in columns beside it."""
    arms = sorted(dict.fromkeys(f.arm for f in figures), key=lambda arm: arm != SAE_ARM)
    rows: dict[tuple[str, str, str], dict[str, Figure]] = {}
    for f in figures:
        rows.setdefault((f.metric, f.setting, f.token_class), {})[f.arm] = f
    named = [_spaced(arm) for arm in arms]
    return Table(named, [_row(place, [found.get(arm) for arm in arms]) for place, found in rows.items()])


def by_dictionary(columns: Mapping[str, Sequence[Figure]]) -> Table:
    """Several dictionaries in columns; controls and baselines in rows of their own."""
    rows: dict[tuple[str, str, str, str], dict[str, Figure]] = {}
    for name, figures in columns.items():
        for f in figures:
            rows.setdefault((f.metric, f.setting, f.token_class, f.arm), {})[name] = f
    return Table(
        list(columns),
        [_row(place[:3], [found.get(name) for name in columns], place[3]) for place, found in rows.items()],
    )


def _row(place: tuple[str, str, str], figures: Sequence[Figure | None], arm: str = SAE_ARM) -> Row:
    shown = metric(place[0])
    label = shown.label if arm == SAE_ARM else f"{shown.label}, {_spaced(arm)}"
    return Row(label, shown.help, place[1], _spaced(place[2]), [cell(f) for f in figures])


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def cell(figure: Figure | None) -> Cell:
    """A figure as it is read; what is not there is said to be missing."""
    if figure is None:
        return Cell("")
    over = f"{figure.n:,} {figure.n_of}" + (f"; {figure.note}" if figure.note else "")
    if figure.value is None:
        return Cell("–", "", over)
    shown = metric(figure.metric)
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = f"[{_number(figure.low, shown.percent)}, {_number(figure.high, shown.percent)}]"
    return Cell(_number(figure.value, shown.percent), interval, over)


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{value:.1%}"
    return f"{int(value):,}" if float(value).is_integer() and abs(value) >= 10 else number(float(value))
