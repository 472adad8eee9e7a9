"""More figures of one latent; they hold numbers only, so nothing in them needs escaping."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.figures import MARKER, bars
from store.latents import LatentPage


def logit_histogram(effects: Mapping[str, Any], page: LatentPage) -> go.Figure:
    """How a latent's effects on all logits are distributed, with those of the tokens listed pointed out.

    Args:
        effects: its row of `logit_effects`.
        page: its promoted and suppressed tokens.
    """
    counts = np.asarray(effects["histogram"], np.int64)
    edges = np.linspace(effects["low"], effects["high"], len(counts) + 1)
    figure = bars(edges, counts, "logits per unit of activation", "tokens")
    listed = [*page.promoted, *page.suppressed]
    figure.add_trace(
        go.Scatter(
            x=[each.value for each in listed],
            y=[0.7] * len(listed),
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 9, "color": MARKER, "line": {"width": 1.5}},
            hovertemplate="listed: %{x:+.3f}<extra></extra>",
        )
    )
    return figure
