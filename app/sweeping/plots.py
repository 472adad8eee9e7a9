"""Plots of a sweep."""

import pandas as pd
import plotly.graph_objects as go

from app.cards import escape
from app.interpretation.plots import layout
from app.palette import COLOURS

GREY = "#9aa1a9"
RANDOM = {"random latents": "dot", "random direction": "dash"}


def against_strength(summary: pd.DataFrame, tier: str, label: str) -> go.Figure:
    """What each arm has above the clean model in one tier, with intervals over texts, and every draw of a control."""
    figure = go.Figure(layout=layout(escape(tier), "strength", escape(label)))
    here = summary.loc[summary["tier"] == tier].sort_values("strength")
    named: set[str] = set()
    for arm, draw in here[["arm", "draw"]].drop_duplicates().itertuples(index=False):
        own = here.loc[(here["arm"] == arm) & (here["draw"] == draw)]
        figure.add_scatter(
            x=own["strength"],
            y=own["above_clean"],
            name=str(arm),
            legendgroup=str(arm),
            showlegend=arm not in named,
            mode="lines+markers",
            **_look(str(arm), own),
        )
        named.add(str(arm))
    told = summary.loc[(summary["arm"] == "instruction") & summary["measure"].isin(here["measure"])]
    if len(told) and told["above_clean"].notna().all():
        figure.add_hline(
            y=float(told["above_clean"].iloc[0]), line_color=COLOURS[2], line_dash="dash", annotation_text="instruction"
        )
    figure.add_hline(y=0, line_color=GREY, line_width=1)
    return figure


def _look(arm: str, own: pd.DataFrame) -> dict[str, object]:
    if arm in RANDOM:
        return {"line": {"color": GREY, "width": 1, "dash": RANDOM[arm]}, "marker": {"size": 4}}
    colour = COLOURS[0] if arm == "latents" else COLOURS[1]
    error = {
        "type": "data",
        "array": (own["above_high"] - own["above_clean"]).fillna(0),
        "arrayminus": (own["above_clean"] - own["above_low"]).fillna(0),
        "thickness": 1.5,
    }
    return {"line": {"color": colour, "width": 2}, "marker": {"size": 7}, "error_y": error}
