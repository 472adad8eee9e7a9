"""How good every dictionary is: a table with a row each, and how the latents of each are spread."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from app import jobs
from app.cards import markdown_text
from app.figures_health import density_multiples
from app.health import TILES, Health, densities, what_is
from app.web import picking
from app.web.state import INDEX, read_only, root, usage_errors
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.figures import Figure
from store.run import Run


class Offer(NamedTuple):
    """A command that makes what a dictionary lacks."""

    label: str
    of: Callable[[Health], bool]
    """Whether a dictionary lacks it."""
    argv: Callable[[Path, str], list[str]]
    """Of the root and the dictionary's id."""


def _evaluate(root: Path, sae: str) -> list[str]:
    return _arguments("evaluate", root, {"quick": True}, [sae])


def _index(root: Path, sae: str) -> list[str]:
    return _arguments("index", root, {"sae": sae})


def _arguments(*asked: Any) -> list[str]:
    # Here, not above: the first page is to be there before what explains and scores is loaded.
    from app.job_commands import arguments

    return arguments(*asked)


MISSING = {
    "evaluate": Offer("Evaluate", lambda each: each.evaluated is None and not each.damaged, _evaluate),
    "index": Offer("Index", lambda each: not each.indexes, _index),
}
MOST_OFFERED = 4
MULTIPLES = 8
"""Histograms drawn: of the newest indexes."""
FORMS = {"{:.3f}": "%.3f", "{:.1f}": "%.1f", "{:,.0f}": "%d", "{:.1%}": "%.1f%%"}
"""A tile's format as the table's."""


def dictionaries_panel(found: Sequence[Health]) -> None:
    """Nothing where there is no dictionary."""
    if not found:
        return
    st.subheader(
        "Dictionaries", help="Measured on held-out text by `monosem evaluate`. Empty: not measured, or not told."
    )
    for each in found:
        if each.damaged:
            st.warning(markdown_text(f"What was measured of {each.sae.id} is left out: {each.damaged}"))
    _table(found)
    if not read_only():
        _offers(found)
    _multiples([index for each in found for index in each.indexes][:MULTIPLES])


def _table(found: Sequence[Health]) -> None:
    if any(each.indexes for each in found):
        st.caption("Click a row to look at the newest index of that dictionary, below and on all pages.")
    clicked = picking.picked("dictionaries")
    ids = [each.sae.id for each in found]
    picking.table(
        "dictionaries",
        pd.DataFrame([_row(each) for each in found]),
        ids,
        (hash(tuple(ids)),),
        column_config=_columns(),
        placeholder="–",
    )
    if clicked in ids:
        _look_at(found[ids.index(clicked)])


def _offers(found: Sequence[Health]) -> None:
    """What is missing of a dictionary, a click away."""
    lacking = [(each, what) for each in found for what in MISSING if MISSING[what].of(each)][:MOST_OFFERED]
    with st.container(horizontal=True):
        for each, what in lacking:
            offer = MISSING[what]
            label = f"{offer.label} {each.sae.id[:8]}"
            about = f"Starts `monosem {what}` in the background: it is listed above."
            st.button(label, key=f"{what} {each.sae.id}", help=about, on_click=_start, args=(what, each.sae.id))


def _start(what: str, sae: str) -> None:
    with usage_errors():
        jobs.start(root(), MISSING[what].argv(root(), sae))


def _look_at(chosen: Health) -> None:
    if not chosen.indexes:
        st.info(
            markdown_text(f"There is no index of {chosen.sae.id}: `monosem index --sae {chosen.sae.id}` makes one.")
        )
        return
    st.session_state[INDEX] = st.query_params[INDEX] = chosen.indexes[0].id


def _columns() -> dict[str, Any]:
    columns: dict[str, Any] = {
        "dictionary": st.column_config.TextColumn("Dictionary", pinned=True),
        "is": st.column_config.TextColumn("What"),
        "indexes": st.column_config.NumberColumn("Indexes", format="%d"),
        "alive": st.column_config.TextColumn("Alive in the index", help="Of the newest index, on the text indexed."),
        "made": st.column_config.TextColumn("Trained", help="UTC"),
    }
    for tile in TILES:
        columns[tile.label] = st.column_config.NumberColumn(tile.label, format=FORMS[tile.form], help=tile.help)
        columns[f"{tile.label} 95%"] = st.column_config.TextColumn("95%", help=f"Interval of: {tile.label}.")
    return columns


def _row(each: Health) -> dict[str, Any]:
    row: dict[str, Any] = {"dictionary": each.sae.id, "is": what_is(each.sae)}
    for tile in TILES:
        figure = each.figures[tile.label]
        value = None if figure is None else figure.value
        row[tile.label] = value * 100 if value is not None and tile.form.endswith("%}") else value
        if any(other is not None for other in (figure and figure.low, figure and figure.high)):
            row[f"{tile.label} 95%"] = _interval(figure, tile.form)
    newest = each.indexes[0].results if each.indexes else {}
    told = "n_alive" in newest and "n_latents" in newest
    row["alive"] = f"{newest['n_alive']:,} of {newest['n_latents']:,}" if told else None
    return row | {"indexes": len(each.indexes), "made": each.sae.manifest["finished_at"][:16].replace("T", " ")}


def _interval(figure: Figure | None, form: str) -> str | None:
    if figure is None or figure.low is None or figure.high is None:
        return None
    return f"{form.format(figure.low)} to {form.format(figure.high)}"


def _multiples(indexes: Sequence[Run]) -> None:
    """Densities of several indexes on the same axes; of a single one they are below."""
    shown = {}
    for index in indexes:
        try:
            shown[f"{index.id[:8]} of sae {index.inputs.get('sae', '–')[:8]}"] = densities(
                index.folder, FeatureIndex(index.folder).version()
            )
        except UsageError as error:
            st.warning(markdown_text(f"Index {index.id} is left out: {error}"))
    if len(shown) > 1:
        st.plotly_chart(density_multiples(shown), key="densities", alt="Density histograms of the newest indexes")
        st.caption("Density (share of tokens on which a latent is active) of the alive latents of the newest indexes.")
