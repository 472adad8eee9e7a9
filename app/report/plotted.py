"""Plots inside a page that opens offline."""

import plotly.graph_objects as go


class Plotted:
    """Figures as HTML; the first one brings the library that draws them all."""

    def __init__(self) -> None:
        self._n = 0

    def __call__(self, figure: go.Figure) -> str:
        self._n += 1
        return figure.to_html(
            full_html=False,
            include_plotlyjs=self._n == 1,
            div_id=f"plot-{self._n}",
            config={"displaylogo": False, "displayModeBar": False, "responsive": True},
        )
