"""Figures of several dictionaries side by side; what is written on them is escaped."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.cards import escape
from app.figures import BAR
from app.health import PER_DECADE

COLUMNS = 4
ROW_HEIGHT = 170


def density_multiples(of: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Histograms of density on the same axes, as shares of each dictionary's alive latents.

    Args:
        of: by name, `app.health.densities`.
    """
    columns = min(COLUMNS, len(of)) or 1
    rows = -(-len(of) // columns) or 1
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[escape(name) for name in of],
        vertical_spacing=0.28 / rows,
        horizontal_spacing=0.03,
    )
    for place, frame in enumerate(of.values()):
        _histogram(figure, frame, place // columns + 1, place % columns + 1)
    figure.update_annotations(font_size=12)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", matches="y")
    figure.update_xaxes(matches="x", dtick=1, tickprefix="10<sup>", ticksuffix="</sup>")
    return figure.update_layout(
        height=70 + ROW_HEIGHT * rows,
        margin={"l": 44, "r": 12, "t": 28, "b": 30},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        bargap=0.06,
    )


def _histogram(figure: go.Figure, frame: pd.DataFrame, row: int, column: int) -> None:
    n = frame["n"].to_numpy()
    low, high = (10 ** ((frame["bin"].to_numpy() + end) / PER_DECADE) for end in (0, 1))
    figure.add_bar(
        x=(frame["bin"].to_numpy() + 0.5) / PER_DECADE,
        y=n / max(n.sum(), 1),
        width=0.94 / PER_DECADE,
        marker_color=BAR,
        customdata=list(zip(n.tolist(), low.tolist(), high.tolist(), strict=True)),
        hovertemplate="%{customdata[1]:.2g} to %{customdata[2]:.2g}: %{customdata[0]:,} latents<extra></extra>",
        row=row,
        col=column,
    )
