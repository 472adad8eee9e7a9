"""The pages in the order of the menu, and how one leads to another."""

from pathlib import Path
from typing import NamedTuple

import streamlit as st

# Not called `pages`: Streamlit would draw a menu of its own from a folder of that name beside its entry point.
FOLDER = Path(__file__).parent / "screens"


class Screen(NamedTuple):
    """A page."""

    title: str
    icon: str


SCREENS: dict[str, Screen] = {
    "home": Screen("Home", ":material/home:"),
    "features": Screen("Features", ":material/table_rows:"),
    "feature": Screen("Feature", ":material/search_insights:"),
    "prompt": Screen("Prompt lab", ":material/science:"),
    "steering": Screen("Steering lab", ":material/tune:"),
    "compare": Screen("Compare", ":material/compare_arrows:"),
    "interpret": Screen("Interpret", ":material/psychology:"),
    "training": Screen("Training", ":material/monitoring:"),
}
"""By the name of their file and their place in the URL."""


def file_of(name: str) -> Path:
    """The script of a page."""
    return FOLDER / f"{name}.py"


def go(name: str, **query: str | list[str]) -> None:
    """Leave for another page, in the state that `query` says."""
    st.switch_page(file_of(name), query_params={**_kept(), **query})


def link(name: str, label: str, icon: str | None = None, **query: str | list[str]) -> None:
    """A link to another page, in the state that `query` says."""
    st.page_link(file_of(name), label=label, icon=icon, query_params={**_kept(), **query})


def _kept() -> dict[str, str]:
    """What of a URL stays wherever one goes: the index that is looked at, if it was chosen."""
    return {name: st.query_params[name] for name in ("index",) if name in st.query_params}
