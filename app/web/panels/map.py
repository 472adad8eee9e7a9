"""A map of the dictionary on which a region can be drawn; what lies in it is what the table shows."""

import numpy as np
import streamlit as st

from app.cards import markdown_text
from app.figures_map import MAPS, Points, map_figure
from app.region import Region, drawn_region, read_region
from app.web.finding import points
from app.web.navigation import go
from app.workbench import Workbench
from store.errors import UsageError

WITHIN = "within"
"""Of the URL: the region."""


def map_panel(bench: Workbench, latents: np.ndarray) -> None:
    """The chosen map of the latents that pass all other filters; what is drawn on it goes to the URL."""
    name = st.segmented_control(
        "Map", list(MAPS), key="map", bind="query-params", help="Draw around points to see only those in the table."
    )
    if name is None:
        return
    places = points(bench, name)
    here = np.isin(places.latent, latents)
    if not here.any():
        st.info(MAPS[name].missing)
        return
    if not here.all() or len(places.latent) < len(latents):
        st.caption(f"{int(here.sum()):,} of the {len(latents):,} latents below have a place on this map.")
    shown = Points(*(values[here] for values in places))
    key = f"chart {name} {st.session_state.get('charts', 0)}"
    event = st.plotly_chart(
        map_figure(name, shown),
        key=key,
        on_select=lambda: _drawn(key),
        selection_mode=("points", "box", "lasso"),
        config={"displaylogo": False, "scrollZoom": True},
        alt=f"Map of latents: {name}",
    )
    selection = event["selection"]
    region = drawn_region(name, selection)
    if region is not None:
        st.query_params[WITHIN] = str(region)
    elif len(selection["points"]) == 1:
        go("feature", latent=str(int(selection["points"][0]["customdata"][0])))


def _drawn(key: str) -> None:
    """What was drawn is gone: so is the filter."""
    selection = st.session_state[key]["selection"]
    if not any(selection.get(kind) for kind in ("lasso", "box", "points")):
        forget_region()


def forget_region() -> None:
    """Show latents wherever they lie."""
    st.query_params.pop(WITHIN, None)
    # Under another key, so that the chart does not tell of its region again.
    st.session_state["charts"] = st.session_state.get("charts", 0) + 1


def within(bench: Workbench, latents: np.ndarray) -> np.ndarray:
    """Those in the region that the URL names, in their order; all of them where it names none."""
    asked = st.query_params.get(WITHIN)
    if not asked:
        return latents
    try:
        region = _known(read_region(asked))
    except UsageError as error:
        st.warning(markdown_text(str(error)))
        return latents
    places = points(bench, region.on)
    inside = latents[np.isin(latents, places.latent[region.has(places.x, places.y)])]
    said, clear = st.columns([4, 1], vertical_alignment="center")
    said.info(f"{len(inside):,} of {len(latents):,} lie in the region drawn on the map “{region.on}”.")
    clear.button("All again", on_click=forget_region, icon=":material/deselect:", width="stretch")
    return inside


def _known(region: Region) -> Region:
    if region.on not in MAPS:
        raise UsageError(f"there is no map '{region.on}': choose one of {', '.join(MAPS)}")
    return region
