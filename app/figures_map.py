"""Maps of a whole dictionary: a point a latent, drawn by WebGL; they hold numbers only, so nothing needs escaping."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.cards import number

COLOURS = ((0.0, "#3d7cc9"), (0.5, "#8f8f8f"), (1.0, "#d98e04"))
"""Low to high: told apart by every common kind of colour vision, and from a light and a dark page alike."""
HEIGHT = 460
"""Pixels."""


class Points(NamedTuple):
    """Where latents lie on a map."""

    latent: np.ndarray
    x: np.ndarray
    y: np.ndarray
    colour: np.ndarray


class Map(NamedTuple):
    """A map, and what it is made of."""

    query: str
    """Gives `latent`, and what `place` reads."""
    place: Callable[[pd.DataFrame], Points]
    x: str
    y: str
    colour: str
    hover: str
    missing: str
    """What to say where no latent has a place."""


def _by_score(rows: pd.DataFrame) -> Points:
    latent, density, score, null = (rows[name].to_numpy(float) for name in ("latent", "density", "score", "null_score"))
    return Points(latent.astype(np.int64), np.log10(density), score, score - null)


def _on_plane(rows: pd.DataFrame) -> Points:
    latent, x, y, density = (rows[name].to_numpy(float) for name in ("latent", "x", "y", "density"))
    return Points(latent.astype(np.int64), x, y, np.log10(density))


MAPS: dict[str, Map] = {
    "density and score": Map(
        "SELECT latent, density, score, null_score FROM features WHERE score IS NOT NULL AND density > 0",
        _by_score,
        "density (share of tokens, log scale)",
        "score",
        "score − null",
        "latent %{customdata[0]}: density %{customdata[1]:.3g}, score %{y:.2f}, above null %{customdata[2]:.2f}",
        "No latent here has a score: `monosem interpret` explains and scores some.",
    ),
    "decoder plane": Map(
        "SELECT latent, x, y, density FROM plane JOIN features USING (latent) WHERE density > 0",
        _on_plane,
        "",
        "",
        "density",
        "latent %{customdata[0]}: density %{customdata[1]:.3g}",
        "No latent here has a place on the plane: `monosem plane` makes one.",
    ),
}
"""By the name in the URL."""


def map_figure(name: str, points: Points) -> go.Figure:
    """The points of a map; `customdata` begins with the latent.

    Args:
        name: of the map, in `MAPS`.
        points: that are shown.
    """
    of = MAPS[name]
    by_score = of.y == "score"
    density = 10.0 ** (points.x if by_score else points.colour)
    scale = {} if by_score else _decades(points.colour)
    cloud = go.Scattergl(
        # Half the bytes; whole numbers up to 2^24 are exact.
        x=points.x.astype(np.float32),
        y=points.y.astype(np.float32),
        mode="markers",
        customdata=np.stack([points.latent, density, points.colour], axis=1).astype(np.float32),
        hovertemplate=of.hover + "<extra></extra>",
        marker={
            "size": 4 if len(points.x) > 5_000 else 7,
            "opacity": 0.75,
            "color": points.colour.astype(np.float32),
            "colorscale": COLOURS,
            "showscale": True,
            "colorbar": {"title": {"text": of.colour}, "thickness": 12, **scale},
        },
    )
    figure = go.Figure(cloud, _layout(of, by_score))
    if by_score:
        figure.update_xaxes(_decades(points.x))
    return figure


def _decades(logs: np.ndarray) -> dict[str, list]:
    """Ticks of an axis that shows powers of ten."""
    known = logs[np.isfinite(logs)]
    decades = np.arange(np.floor(known.min()), np.ceil(known.max()) + 1) if len(known) else np.empty(0)
    return {"tickvals": decades.tolist(), "ticktext": [number(10.0**decade) for decade in decades]}


def _layout(of: Map, axes: bool) -> go.Layout:
    return go.Layout(
        height=HEIGHT,
        margin={"l": 50 if axes else 8, "r": 8, "t": 30, "b": 42 if axes else 8},
        xaxis={"title": {"text": of.x}, "visible": axes, "zeroline": False},
        yaxis={"title": {"text": of.y}, "visible": axes, "zeroline": False},
        dragmode="lasso",
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
