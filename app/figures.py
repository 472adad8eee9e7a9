"""Figures of one latent and of the whole dictionary; they hold numbers only, so nothing in them needs escaping."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.cards import number
from store.latents import LatentPage

BAR, MARKER = "#5b8db8", "#d55e00"
DENSITY_BINS_PER_DECADE = 4


def activation_histogram(page: LatentPage, marker: float | None = None) -> go.Figure:
    """Active values of a latent, counts on a log axis.

    Args:
        page: what is stored of the latent.
        marker: a value to point out, such as the maximum on a text of one's own.
    """
    if not page.alive:
        return _empty("never fired on this text")
    edges = np.linspace(min(page.statistics["min"], 0), page.statistics["max"], len(page.histogram) + 1)
    figure = bars(edges, page.histogram, "activation", "tokens")
    if marker is not None:
        figure.add_vline(x=marker, line_color=MARKER, line_width=2, annotation_text=f"your text: {number(marker)}")
    return figure


def density_figure(features: pd.DataFrame) -> go.Figure:
    """How many latents fire how often, over the whole dictionary; the dead ones, off any log axis, are counted.

    Args:
        features: at least column `density`.
    """
    density = features["density"].to_numpy(dtype=float)
    alive = density[density > 0]
    if not len(alive):
        return _empty("no latent fired on this text")
    low, high = (
        np.floor(np.log10(alive.min())),
        max(np.ceil(np.log10(alive.max())), np.floor(np.log10(alive.min())) + 1),
    )
    edges = np.linspace(low, high, round((high - low) * DENSITY_BINS_PER_DECADE) + 1)
    counts, _ = np.histogram(np.log10(alive), edges)
    figure = bars(edges, counts, "density (share of tokens, log scale)", "latents", log_counts=False, log_edges=True)
    decades = np.arange(low, high + 1)
    figure.update_xaxes(tickvals=decades, ticktext=[f"{10**decade:.6g}" for decade in decades])
    return figure


def bars(
    edges: np.ndarray, counts: np.ndarray, x: str, y: str, *, log_counts: bool = True, log_edges: bool = False
) -> go.Figure:
    bounds = 10**edges if log_edges else edges
    bar = go.Bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=counts,
        width=np.diff(edges) * 0.94,
        marker_color=BAR,
        customdata=np.stack([bounds[:-1], bounds[1:]], axis=1),
        hovertemplate=f"%{{customdata[0]:.3g}} to %{{customdata[1]:.3g}}: %{{y:,}} {y}<extra></extra>",
    )
    figure = go.Figure(bar, _layout(y, "log" if log_counts else "linear"))
    figure.update_xaxes(title_text=x)
    if log_counts:
        # From below 1, so that a bin with a single token has a bar.
        figure.update_yaxes(range=[-0.3, np.log10(max(counts.max(), 1)) + 0.3], dtick=1)
    return figure


def _layout(y: str, scale: str) -> go.Layout:
    return go.Layout(
        height=230,
        margin={"l": 50, "r": 12, "t": 24, "b": 42},
        yaxis={"type": scale, "title": {"text": y}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
    )


def _empty(message: str) -> go.Figure:
    figure = go.Figure(layout=_layout("", "linear"))
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text=message, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    return figure
