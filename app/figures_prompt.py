"""Figures of a prompt: one bar a token. Names of tokens are escaped: Plotly reads some HTML in them."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from app.cards import escape, visible

UP, DOWN = "#d55e00", "#0072b2"
"""Vermilion and blue of Okabe and Ito's palette: told apart by every common kind of colour vision."""
HEIGHT = 190


def token_bars(tokens: Sequence[str], values: np.ndarray, name: str, *, chosen: int | None = None) -> go.Figure:
    """One bar a token, up and down from 0 in two colours; nothing where there is no value.

    Args:
        tokens: their texts.
        values: `[n_tokens]`, NaN for none.
        name: of the values, with their unit.
        chosen: a token to point out.
    """
    known = np.nan_to_num(values)
    bar = go.Bar(
        x=np.arange(len(values)),
        y=[None if value != value else value for value in values.tolist()],
        marker_color=np.where(known < 0, DOWN, UP),
        customdata=[escape(visible(token)) for token in tokens],
        hovertemplate="token %{x}: %{customdata}<br>%{y:.4g}<extra></extra>",
    )
    layout = go.Layout(
        height=HEIGHT,
        margin={"l": 50, "r": 12, "t": 12, "b": 40},
        yaxis={"title": {"text": name}},
        xaxis={"title": {"text": "token"}, "range": [-0.6, len(values) - 0.4]},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        bargap=0.1,
    )
    figure = go.Figure(bar, layout)
    if chosen is not None:
        figure.add_vrect(x0=chosen - 0.5, x1=chosen + 0.5, fillcolor="gray", opacity=0.25, line_width=0)
    return figure
