"""Figures of two dictionaries: cosines of best partners beside chance, and what each pays for what among others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.cards import escape
from app.evaluation.comparable import RECOVERED
from app.palette import COLOURS
from app.report.glossary import metric
from app.side_by_side import Point
from store.figures import Figure

NORMAL = {"token_class": "normal"}
L0 = ("reconstruction", "l0", NORMAL)
TRADES: dict[str, tuple[tuple[str, str, Mapping[str, str]], tuple[str, str, Mapping[str, str]], bool]] = {
    "FVU against L0": (L0, ("reconstruction", "fvu", NORMAL), False),
    "Loss recovered against L0": (L0, ("loss", "loss_recovered", RECOVERED), True),
}
"""What is on either axis, and whether more of y is better; less of x always is."""
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "pentagon")
SIDE_COLOURS = {"a": COLOURS[0], "b": COLOURS[1]}
SIDE_DASHES = {"a": "solid", "b": "dash"}
CHANCE = "#888888"
N_BINS = 50
HEIGHT = 320


def best_figure(
    best: Mapping[str, np.ndarray], chance: Mapping[str, np.ndarray], threshold: float | None, measure: str
) -> go.Figure:
    """How near the nearest latent of the other dictionary is, for each side, beside what chance gives.

    Args:
        best: by side, each latent's largest value.
        chance: the same where a dictionary is random.
        threshold: above it a pair counts as matched.
        measure: what the values are.
    """
    drawn = {
        f"{side}: nearest in {'b' if side == 'a' else 'a'}": (values, SIDE_COLOURS[side], SIDE_DASHES[side])
        for side, values in best.items()
    }
    null = np.concatenate(list(chance.values())) if chance else np.array([])
    everything = [values for values, _, _ in drawn.values()] + [null]
    if not sum(map(len, everything)):
        return go.Figure(layout=_layout(measure, "share of latents"))
    edges = np.linspace(min(0.0, *(v.min() for v in everything if len(v))), 1.0, N_BINS + 1)
    figure = go.Figure(layout=_layout(measure, "share of latents"))
    for name, (values, colour, dash) in {**drawn, "chance: one of them random": (null, CHANCE, "dot")}.items():
        if len(values):
            shares = np.histogram(np.clip(values, edges[0], 1.0), edges)[0] / len(values)
            line = {"color": colour, "dash": dash, "shape": "hvh", "width": 2}
            hover = "%{x:.2f}: %{y:.1%}"
            figure.add_scatter(
                x=(edges[:-1] + edges[1:]) / 2, y=shares, name=name, mode="lines", line=line, hovertemplate=hover
            )
    if threshold is not None:
        figure.add_vline(
            x=threshold,
            line_color=CHANCE,
            line_dash="dash",
            annotation_text=f"matched above {threshold:.2f}",
            annotation_position="top left" if threshold > 0.5 else "top right",
        )
    figure.update_yaxes(tickformat=".0%")
    return figure


def trade_figure(points: Sequence[Point], chosen: Mapping[str, str], *, more_is_better: bool) -> go.Figure:
    """Dictionaries by what they pay and get, with their 95 % intervals; those that none betters in both are joined.

    Args:
        points: a point a dictionary.
        chosen: `a` and `b` by the ref of the dictionary that is drawn as such.
        more_is_better: of y; of x less is.
    """
    names = points[0].x.metric, points[0].y.metric
    figure = go.Figure(layout=_layout(metric(names[0]).label, metric(names[1]).label))
    front = unbettered(points, more_is_better=more_is_better)
    line = {"color": CHANCE, "dash": "dot", "width": 1}
    figure.add_scatter(
        x=[p.x.value for p in front], y=[p.y.value for p in front], mode="lines", line=line, name="bettered by none",
        hoverinfo="skip",
    )  # fmt: skip
    for number, variant in enumerate(sorted({point.variant for point in points})):
        some = [point for point in points if point.variant == variant]
        symbol = SYMBOLS[number % len(SYMBOLS)]
        _draw(figure, some, escape(variant), COLOURS[(number + 2) % (len(COLOURS) - 1)], symbol)
    for side, ref in chosen.items():
        for point in (point for point in points if point.ref == ref):
            _mark(figure, side, point)
    if metric(names[1]).percent:
        figure.update_yaxes(tickformat=".0%")
    return figure


def unbettered(points: Sequence[Point], *, more_is_better: bool) -> list[Point]:
    """Those that no other one equals or betters in both figures, from left to right; intervals play no part."""
    sign = -1.0 if more_is_better else 1.0
    ordered = sorted(points, key=lambda point: (_number(point.x), sign * _number(point.y)))
    front, best = [], np.inf
    for point in ordered:
        if sign * _number(point.y) < best:
            front.append(point)
            best = sign * _number(point.y)
    return front


def _draw(figure: go.Figure, points: Sequence[Point], name: str, colour: str, symbol: str) -> None:
    figure.add_scatter(
        x=[point.x.value for point in points],
        y=[point.y.value for point in points],
        error_x=_bars([point.x for point in points], colour),
        error_y=_bars([point.y for point in points], colour),
        mode="markers",
        marker={"size": 9, "color": colour, "symbol": symbol},
        text=[escape(point.title) for point in points],
        customdata=[point.ref for point in points],
        hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
        name=name,
    )


def _mark(figure: go.Figure, side: str, point: Point) -> None:
    ring = {"size": 20, "color": SIDE_COLOURS[side], "symbol": "circle-open", "line": {"width": 3}}
    figure.add_scatter(
        x=[point.x.value], y=[point.y.value], mode="markers+text", marker=ring, text=[f"<b>{side}</b>"],
        textposition="top left" if side == "a" else "bottom right", name=side, hoverinfo="skip",
    )  # fmt: skip


def _bars(figures: Sequence[Figure], colour: str) -> dict[str, Any]:
    above = [0.0 if f.high is None else f.high - _number(f) for f in figures]
    below = [0.0 if f.low is None else _number(f) - f.low for f in figures]
    return {"type": "data", "array": above, "arrayminus": below, "thickness": 1, "color": colour}


def _number(figure: Figure) -> float:
    assert figure.value is not None, "points have both figures"
    return figure.value


def _layout(x: str, y: str) -> go.Layout:
    return go.Layout(
        height=HEIGHT,
        margin={"l": 56, "r": 12, "t": 24, "b": 42},
        xaxis={"title": {"text": x}},
        yaxis={"title": {"text": y}},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
