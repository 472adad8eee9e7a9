"""Compare: two dictionaries, or two steps of one training, by their figures, latents and settings."""

import streamlit as st

from app.cards import markdown_text
from app.dictionaries import Dictionary, dictionaries, first_two
from app.settings_table import differing
from app.web.choices import choose_one
from app.web.panels.compare_figures import figures
from app.web.panels.compare_latents import PAIR, latents, swapped
from app.web.state import root, usage_errors


def settings(a: Dictionary, b: Dictionary) -> None:
    """What was asked for, where it differs, and all of it."""
    if a.run.id == b.run.id:
        st.caption("Both are of one training: their settings are the same.")
    else:
        differ = differing({"a": a.run, "b": b.run})
        st.caption(f"{len(differ)} settings differ; – is none." if len(differ) else "No setting differs.")
        if len(differ):
            st.dataframe(differ, hide_index=True, height="content" if len(differ) <= 15 else 560)
    for side, one in {"a": a, "b": b}.items():
        with st.expander(f"All that is told of {side}"):
            kept = ("id", "config", "inputs", "results", "made_by")
            st.json({key: one.run.manifest.get(key) for key in kept}, expanded=1)


VIEWS = {"Figures": figures, "Latents": latents, "Settings": settings}


def swap(a: str, b: str) -> None:
    """Let a be b, and look at the same pair."""
    st.query_params.update({"a": b, "b": a})
    if PAIR in st.query_params:
        st.query_params[PAIR] = swapped(st.query_params[PAIR])


def choose(found: dict[str, Dictionary]) -> tuple[Dictionary, Dictionary]:
    """Both dictionaries, by the URL."""
    titles = {ref: one.title for ref, one in found.items()}
    default_a, default_b = first_two(found)
    left, middle, right = st.columns([4, 1.4, 4], vertical_alignment="bottom")
    a = choose_one(left, "a", "a", titles, default_a, forgets=[PAIR])
    b = choose_one(right, "b", "b", titles, default_b, forgets=[PAIR])
    middle.button("Swap", on_click=swap, args=(a, b), icon=":material/swap_horiz:", width="stretch", help="a for b")
    return found[a], found[b]


def show() -> None:
    """The whole page."""
    found = dictionaries(root())
    if len(found) < 2:
        there = "There is one dictionary" if found else "There is no dictionary yet"
        st.info(
            f"{there}, and two are compared. In a terminal, `monosem demo` makes a harvest and a dictionary, and "
            "`monosem train topk` another one; `monosem train topk --keep-every 100` keeps one of every hundredth step."
        )
        return
    a, b = choose(found)
    if a.ref == b.ref:
        st.info(f"Both are {markdown_text(a.title)}: choose another one.")
        return
    view = st.segmented_control("View", list(VIEWS), default="Figures", key="view", bind="query-params", required=True)
    with usage_errors():
        VIEWS[view or "Figures"](a, b)


st.title("Compare")
show()
