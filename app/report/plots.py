"""The report's plots: curves of the parts, and what several dictionaries trade for what."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from app.cards import escape
from app.evaluation.comparable import RECOVERED
from app.palette import COLOURS, DASHES
from app.report.compared import Group
from app.report.glossary import Plot, metric, plot
from store.figures import Curve, Figure, find

HEIGHT, LEGEND_LINE = 300, 22
"""Pixels: of a plot, and of each further line of its legend."""
NORMAL = {"token_class": "normal"}
# What is on either axis: part, metric, and which of its figures.
TRADES = (
    (("reconstruction", "l0", NORMAL), ("reconstruction", "fvu", NORMAL)),
    (("reconstruction", "l0", NORMAL), ("loss", "loss_recovered", RECOVERED)),
    (("reconstruction", "bits_per_token", NORMAL), ("reconstruction", "fvu", NORMAL)),
    (("reconstruction", "bits_per_token", NORMAL), ("loss", "loss_recovered", RECOVERED)),
)


def curve_figures(curves: Mapping[str, Sequence[Curve]]) -> list[go.Figure]:
    """A figure for every plot; with several dictionaries, by name, their series are told apart by it."""
    names = dict.fromkeys(curve.plot for some in curves.values() for curve in some)
    return [_curve_figure(name, curves) for name in names]


def _curve_figure(name: str, curves: Mapping[str, Sequence[Curve]]) -> go.Figure:
    shown = plot(name)
    figure = go.Figure(layout=_layout(shown))
    found = [(owner, curve) for owner, some in curves.items() for curve in some if curve.plot == name]
    labels = [f"{owner}: {curve.series}" if len(curves) > 1 else curve.series for owner, curve in found]
    # what stands before the colon tells lines by their dash, what stands behind it by their colour
    kinds = [_parts(label) for label in labels]
    if len({behind for _, behind in kinds}) == 1:  # nothing else tells them apart
        kinds = [(behind, before) for before, behind in kinds]
    dashes, colours = (list(dict.fromkeys(part)) for part in zip(*kinds, strict=True))
    for label, (dash, colour), (_, curve) in zip(labels, kinds, found, strict=True):
        look = COLOURS[colours.index(colour) % len(COLOURS)]
        name = escape(label.replace("_", " "))
        if shown.bars:
            figure.add_bar(x=curve.x, y=curve.y, name=name, marker_color=look, opacity=0.75)
        else:
            line = {"color": look, "dash": DASHES[dashes.index(dash) % len(DASHES)]}
            figure.add_scatter(x=curve.x, y=curve.y, name=name, mode="lines", line=line)
    figure.update_layout(showlegend=len(found) > 1, barmode="overlay", bargap=0.05)
    figure.update_layout(height=HEIGHT + LEGEND_LINE * (len(found) // 3))
    return figure


def _parts(label: str) -> tuple[str, str]:
    before, _, behind = label.rpartition(": ")
    return before, behind


def trade_figures(groups: Sequence[Group]) -> list[go.Figure]:
    """What is paid for with what, a point a group with its intervals; only plots with two points or more."""
    figures = []
    for across, up in TRADES:
        points = [(g, _figure_of(g, *across), _figure_of(g, *up)) for g in groups]
        told = [(g, x, y) for g, x, y in points if x is not None and y is not None]
        if len(told) > 1:
            figures.append(_trade_figure(across[1], up[1], told))
    return figures


def _figure_of(group: Group, part: str, name: str, where: Mapping[str, str]) -> Figure | None:
    found = find(group.figures(part), name, **where)
    return None if found is None or found.value is None else found


def _trade_figure(x_name: str, y_name: str, points: Sequence[tuple[Group, Figure, Figure]]) -> go.Figure:
    x_label, y_label = metric(x_name).label, metric(y_name).label
    figure = go.Figure(layout=_layout(Plot(title=f"{y_label} against {x_label}", x=x_label, y=y_label)))
    for number, (group, x, y) in enumerate(points):
        colour = COLOURS[number % len(COLOURS)]
        figure.add_scatter(
            x=[x.value],
            y=[y.value],
            error_x=_bar(x, colour),
            error_y=_bar(y, colour),
            mode="markers",
            marker={"size": 10, "color": colour},
            name=escape(group.name),
        )
    return figure


def _bar(figure: Figure, colour: str) -> dict[str, object] | None:
    if figure.value is None or figure.low is None or figure.high is None:
        return None
    above, below = figure.high - figure.value, figure.value - figure.low
    return {"type": "data", "array": [above], "arrayminus": [below], "thickness": 1, "color": colour}


def _layout(shown: Plot) -> go.Layout:
    return go.Layout(
        title={"text": shown.title, "font": {"size": 15}},
        height=HEIGHT,
        margin={"l": 60, "r": 16, "t": 44, "b": 48},
        xaxis={"title": {"text": shown.x}, "type": "log" if shown.log_x else "linear"},
        yaxis={"title": {"text": shown.y}, "type": "log" if shown.log_y else "linear"},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        template="plotly_white",
    )
