"""Curves of trainings: one figure a quantity, one line a training, a point a logged step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.cards import escape
from app.palette import COLOURS, DASHES

MOST_POINTS = 2000
"""Of a line; of a longer log every so many-th line is drawn, the last one always."""
HEIGHT = 260
RAW_OPACITY = 0.25


@dataclass(frozen=True)
class Quantity:
    """What a training logs, and how it is shown."""

    label: str
    help: str
    log: bool = True
    """Whether a logarithmic axis makes sense of it."""


QUANTITIES: dict[str, Quantity] = {
    "loss": Quantity("loss", "What was minimised, on the batch of that step."),
    "fvu": Quantity("FVU", "Fraction of variance unexplained in that batch, before the step."),
    "l0": Quantity("L0", "Mean number of active latents per row of that batch."),
    "n_dead": Quantity("dead latents", "Silent for longer than the dead threshold.", log=False),
    "lr": Quantity("learning rate", "Of that step."),
    "distinct_sequences": Quantity("distinct sequences", "In that batch: how well the rows are mixed.", log=False),
    "batch_entropy": Quantity("batch entropy", "Of the rows over sequences, as a share of the largest.", log=False),
}
"""By its name in the log; whatever else a variant logs is a term of its loss, under its own name."""
USUAL = ("loss", "fvu", "l0", "n_dead", "lr")
COUNTERS = {"step": "step", "n_tokens": "rows trained on"}
"""What may lie on the horizontal axis."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How curves are drawn."""

    x: str = "step"
    """A name in `COUNTERS`."""
    log_y: bool = False
    smoothing: float = 0.0
    """Weight of the past in the running mean, below 1; 0 draws what was logged."""


def quantity(name: str) -> Quantity:
    """How a logged number is shown."""
    return QUANTITIES.get(name, Quantity(name.replace("_", " "), "A term of the loss, before its weight."))


def logged(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Names of all that some log holds, the usual ones first."""
    found = dict.fromkeys(name for log in logs.values() for line in log[-1:] for name in line)
    names = [name for name in found if name not in COUNTERS]
    return [*(name for name in USUAL if name in names), *(name for name in names if name not in USUAL)]


def curve_figure(name: str, logs: Mapping[str, Sequence[Mapping[str, Any]]], look: Look) -> go.Figure:
    """One quantity over the course of trainings.

    Args:
        name: of the quantity, in the logs.
        logs: lines by the training's title; colours and dashes go by their order, in every figure alike.
        look: how it is drawn. Where curves are smoothed, what was logged stands behind them, pale.
    """
    shown = quantity(name)
    log_y = look.log_y and shown.log
    figure = go.Figure(layout=_layout(shown, COUNTERS[look.x], log_y))
    values: set[float] = set()
    for number, (title, lines) in enumerate(logs.items()):
        x, y = _points(lines, look.x, name)
        values.update(y[np.isfinite(y)].tolist())
        line = {"color": COLOURS[number % len(COLOURS)], "dash": DASHES[number // len(COLOURS) % len(DASHES)]}
        if look.smoothing:
            _draw(figure, x, y, {**line, "width": 1}, escape(title), opacity=RAW_OPACITY, hoverinfo="skip")
            y = smoothed(y, look.smoothing)
        _draw(figure, x, y, line, escape(title))
    if len(values) == 1 and not log_y:
        # Plotly would draw a number that never changes in the middle of ±1, where a learning rate looks like 0.
        figure.update_yaxes(range=[0, 2 * max(values) or 1])
    return figure


def _draw(figure: go.Figure, x: np.ndarray, y: np.ndarray, line: Mapping[str, Any], name: str, **more: Any) -> None:
    few = {"mode": "lines+markers"} if len(x) < 2 else {"mode": "lines"}
    figure.add_scatter(x=x, y=y, line=line, name=name, hovertemplate="%{x:,}: %{y:.5g}", **few, **more)


def smoothed(y: np.ndarray, weight: float) -> np.ndarray:
    """`[n]` exponentially weighted mean of each point and those before it, without bias at the start.

    A point that is no number is left out of the mean and stays none.
    """
    out, total, mass = np.full(len(y), np.nan), 0.0, 0.0
    for i, value in enumerate(y):
        if np.isfinite(value):
            total, mass = weight * total + (1 - weight) * value, weight * mass + (1 - weight)
            out[i] = total / mass
    return out


def _points(lines: Sequence[Mapping[str, Any]], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Both coordinates; a line that lacks one is left out."""
    every = max(1, -(-len(lines) // MOST_POINTS))
    kept = list(lines[::-1][::every][::-1])
    found = [(line[x], line[y]) for line in kept if line.get(x) is not None and line.get(y) is not None]
    both = np.array(found, dtype=float).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _layout(shown: Quantity, x: str, log_y: bool) -> go.Layout:
    return go.Layout(
        height=HEIGHT,
        margin={"l": 56, "r": 12, "t": 12, "b": 42},
        xaxis={"title": {"text": x}},
        yaxis={"title": {"text": shown.label}, "type": "log" if log_y else "linear", "exponentformat": "power"}
        | ({"dtick": "D2"} if log_y else {}),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        hovermode="x",
    )
