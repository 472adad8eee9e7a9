"""Plots of an interpretation report."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from app.cards import escape
from app.palette import COLOURS, DASHES
from autointerp.arms import EXPLANATION, NULLS
from autointerp.report_queries import N_BINS
from autointerp.reporting import Above, Density, Rows
from autointerp.statistics.agreement import Agreement, Bin

HEIGHT, ROW_HEIGHT, CELL_HEIGHT = 340, 24, 62
"""Pixels: of a plot, and of what grows with its rows."""
MOST_POINTS = 2000
"""Points of a scatter plot: of more latents, as many are drawn at random."""
GREY = "#888888"


def histogram(label: str, rows: Rows) -> go.Figure:
    """Scores of the explanations as bars, and of every null as a line around its bars."""
    figure = go.Figure(layout=layout(escape(label), "score", "share of latents"))
    first = rows[0]
    width = first["high"] - first["low"]
    low = first["low"] - first["bin"] * width
    edges = [low + i * width for i in range(N_BINS + 1)]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        found = {row["bin"]: row for row in rows if row["arm"] == arm}
        shares = [found[i]["share"] if i in found else 0 for i in range(N_BINS)]
        counts = [found[i]["n_latents"] if i in found else 0 for i in range(N_BINS)]
        told = {"customdata": counts, "hovertemplate": "%{customdata} latents, %{y:.1%}"}
        if arm == EXPLANATION:
            middles = [edge + width / 2 for edge in edges[:-1]]
            figure.add_bar(
                x=middles, y=shares, width=width * 0.94, name=arm, marker_color=COLOURS[0], opacity=0.6, **told
            )
        else:
            told["customdata"].append(counts[-1])
            line = {"shape": "hv", "width": 2, **_look(arm)}
            figure.add_scatter(x=edges, y=[*shares, shares[-1]], name=arm, mode="lines", line=line, **told)
    figure.add_vline(x=first["chance"], line_color=GREY, line_dash="dot", annotation_text="chance")
    figure.update_layout(bargap=0, showlegend=True, margin_t=64)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def _look(null: str) -> dict[str, str]:
    at = NULLS.index(null)
    return {"color": COLOURS[1 + at % (len(COLOURS) - 1)], "dash": DASHES[at % len(DASHES)]}


def above_nulls(found: Sequence[Above], labels: Mapping[str, str]) -> go.Figure:
    """Score minus null, a row each, with its interval."""
    figure = go.Figure(layout=layout("", "score minus null, mean over latents", ""))
    n_shown = 0
    for each in found:
        difference = each.of.difference
        if difference is None:
            continue
        n_shown += 1
        low, high = each.of.interval or (difference, difference)
        name = f"{escape(labels[each.run])} − {each.null}"
        figure.add_scatter(
            x=[difference],
            y=[name],
            mode="markers",
            marker={"size": 9, "color": _look(each.null)["color"]},
            error_x=_error(difference, low, high),
            hovertemplate=f"%{{x:.3f}}, {each.of.n_latents} latents<extra>{name}</extra>",
        )
    figure.add_vline(x=0, line_color=GREY, line_dash="dot")
    figure.update_layout(height=110 + ROW_HEIGHT * n_shown, showlegend=False, margin={"l": 190, "t": 12})
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def density_against_score(label: str, of: Density) -> go.Figure:
    """Every latent by how often it fires and what it scored."""
    figure = go.Figure(layout=layout(escape(label), "density (share of tokens, log scale)", "score"))
    n = min(MOST_POINTS, len(of.latents))
    figure.add_scatter(
        x=of.density[:n],
        y=of.value[:n],
        mode="markers",
        marker={"size": 6, "color": COLOURS[0], "opacity": 0.6},
        customdata=of.latents[:n],
        hovertemplate="latent %{customdata}: density %{x:.2e}, score %{y:.3f}<extra></extra>",
    )
    figure.update_xaxes(type="log", exponentformat="power", dtick=1 if max(of.density) > 10 * min(of.density) else None)
    figure.update_layout(showlegend=False)
    return figure


def agreement_matrix(found: Mapping[tuple[str, str], Agreement], labels: Mapping[str, str]) -> go.Figure:
    """Correlation of every two scorers, and over how many latents."""
    runs = [run for run in labels if any(run in pair for pair in found)]
    both = {**found, **{(other, one): value for (one, other), value in found.items()}}
    cells = [[both.get((one, other)) for other in runs] for one in runs]
    names = [escape(labels[run]) for run in runs]
    figure = go.Figure(layout=layout("", "", ""))
    figure.add_heatmap(
        z=[[None if cell is None else cell.value for cell in row] for row in cells],
        x=names,
        y=names,
        zmin=-1,
        zmax=1,
        colorscale="RdBu",
        reversescale=True,
        xgap=2,
        ygap=2,
        colorbar={"title": {"text": "Spearman"}, "thickness": 12},
        hoverongaps=False,
        hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>",
    )
    for row, one in zip(cells, names, strict=True):
        for cell, other in zip(row, names, strict=True):
            if cell is not None:
                strong = cell.value is not None and abs(cell.value) > 0.6
                text = f"{'–' if cell.value is None else f'{cell.value:.2f}'}<br>n={cell.n}"
                font = {"size": 12, "color": "white" if strong else "#1b1f24"}
                figure.add_annotation(x=other, y=one, text=text, showarrow=False, font=font)
    figure.update_layout(height=90 + CELL_HEIGHT * len(names), margin={"l": 110, "t": 12})
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figure


def calibration_curve(label: str, bins: Sequence[Bin]) -> go.Figure:
    """Share that was true against the probability given, with a diagonal where a judge says what is so."""
    figure = go.Figure(layout=layout(escape(label), "probability that the judge gave to yes", "share that was true"))
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dot"}, hoverinfo="skip")
    told = [
        (each.mean_probability, each.share_true, each.interval, each.n)
        for each in bins
        if each.share_true is not None and each.interval is not None
    ]
    for said, true, (low, high), n in told:
        figure.add_scatter(
            x=[said],
            y=[true],
            mode="markers",
            marker={"size": 8, "color": COLOURS[0]},
            error_y=_error(true, low, high),
            hovertemplate=f"{n:,} answers: said %{{x:.2f}}, true %{{y:.2f}}<extra></extra>",
        )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(range=[-0.02, 1.02])
    return figure


def _error(value: float, low: float, high: float) -> dict[str, object]:
    return {"type": "data", "array": [high - value], "arrayminus": [value - low], "thickness": 1.5}


def layout(title: str, x: str, y: str) -> go.Layout:
    """Of every plot of a page."""
    return go.Layout(
        title={"text": title, "font": {"size": 15}},
        height=HEIGHT,
        margin={"l": 60, "r": 16, "t": 44, "b": 48},
        xaxis={"title": {"text": x}},
        yaxis={"title": {"text": y}},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        template="plotly_white",
    )
