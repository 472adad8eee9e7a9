"""What one index is of, how good its dictionary is on held-out text, and how its latents are spread."""

from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pandas as pd
import streamlit as st

from app.cards import escape, wrapped
from app.figures import density_figure
from app.health import TILES
from app.web.navigation import SCREENS, link
from app.workbench import Workbench
from store.errors import UsageError
from store.figures import Figure, find

COUNTS = """
SELECT count(*) AS n, count_if(n_fired > 0) AS alive, count(explanation) AS explained, count(score) AS scored
FROM features
"""
LINKS = {
    "features": ("Browse the features", ":material/arrow_forward:"),
    "training": ("Training curves", ":material/show_chart:"),
    "compare": ("Compare", ":material/compare_arrows:"),
    "interpret": ("Interpret", ":material/psychology:"),
}
"""By page: those that there are."""


def index_panel(bench: Workbench) -> None:
    """All of it."""
    st.html(
        wrapped(
            f"Model <code>{escape(bench.model_name or 'not here')}</code> at hook point "
            f"<code>{escape(bench.hook_point or 'not known')}</code> · "
            f"SAE <code>{escape(bench.dictionary)}</code> · index <code>{escape(bench.run.id)}</code>"
        )
    )
    _links(bench)
    _evaluation_row(bench)
    n_silent = _latents_row(bench)
    st.markdown(
        "**Density**", help="Share of tokens on which a latent is active. Latents far to the right fire on most text."
    )
    st.plotly_chart(
        density_figure(bench.index.sql("SELECT density FROM latents")), key="density", alt="Density histogram"
    )
    if n_silent:
        st.caption(f"{n_silent:,} latents never fired on the indexed text and are not in the figure.")
    _made_by(bench)


def _links(bench: Workbench) -> None:
    queries = {"training": {"runs": bench.dictionary}, "compare": {"a": bench.dictionary}}
    there = [name for name in LINKS if name in SCREENS]
    with st.container(horizontal=True):
        for name in there:
            link(name, *LINKS[name], index=bench.run.id, **queries.get(name, {}))


def _evaluation_row(bench: Workbench) -> None:
    """The held-out figures, or how to get them."""
    evaluated = bench.evaluated
    if evaluated is None:
        st.info("This SAE has not been evaluated: `monosem evaluate` measures it on held-out text.")
        return
    for column, tile in zip(st.columns(len(TILES)), TILES, strict=True):
        figure = find(evaluated.measured(tile.part).figures, **tile.where)
        column.metric(
            tile.label, *_shown(figure, tile.form), help=tile.help, border=True, delta_color="off", delta_arrow="off"
        )
    rows = [figure for figure in evaluated.measured("reconstruction").figures if figure.token_class]
    if rows:
        with st.expander("By token class"):
            table = pd.DataFrame([{**asdict(row), "figure": f"{row.metric} {row.setting}".strip()} for row in rows])
            st.dataframe(table.pivot_table(index="figure", columns="token_class", values="value", sort=False))


def _shown(figure: Figure | None, form: str) -> tuple[str, str | None]:
    """The value, and its interval."""
    if figure is None or figure.value is None:
        return "not measured" if figure is None else "too few tokens", None
    if figure.low is None or figure.high is None:
        return form.format(figure.value), None
    return form.format(figure.value), f"{form.format(figure.low)} to {form.format(figure.high)}"


def _latents_row(bench: Workbench) -> int:
    """How many latents there are to look at; the number that never fired."""
    counts = {name: int(value) for name, value in bench.index.sql(COUNTS).iloc[0].items()}
    cells = (
        ("In the dictionary", counts["n"], "Width of the SAE, d_sae."),
        ("Alive", counts["alive"], "Active on at least one token of the indexed text."),
        ("Explained", counts["explained"], "With at least one explanation."),
        ("Scored", counts["scored"], "With an explanation whose score could be told."),
    )
    for column, (label, count, help_text) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, f"{count:,}", help=help_text, border=True)
    return counts["n"] - counts["alive"]


def _made_by(bench: Workbench) -> None:
    """The runs behind this panel, as their manifests have them."""
    runs = {"index": bench.run}
    # Of an index that was imported, or whose dictionary is gone, there is nothing more to show.
    with suppress(UsageError):
        runs |= {"sae": bench.sae_run, "activations": bench.activations_run}
    if bench.evaluated is not None:
        runs |= {f"evaluation, {part}": run for part, run in bench.evaluated.runs.items()}
    with st.expander("What made this"):
        kept: dict[str, Any] = {
            name: {key: run.manifest.get(key) for key in ("id", "config", "inputs", "results", "made_by")}
            for name, run in runs.items()
        }
        st.json(kept, expanded=1)
