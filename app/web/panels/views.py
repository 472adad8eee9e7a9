"""States of a page that somebody gave a name: kept with the notes, opened by anybody."""

from urllib.parse import parse_qs, urlencode

import streamlit as st

from app.cards import markdown_text
from app.web.finding import notes
from app.web.navigation import link
from app.web.panels.notes import author_box
from app.web.state import INDEX, read_only, usage_errors
from app.workbench import Workbench

PASSING = (INDEX, "page")
"""Of a URL, what is no part of a view."""


def views_bar(bench: Workbench, page: str) -> None:
    """The saved views of a page, and a way to save this one."""
    kept, sae = notes(bench), bench.dictionary
    with st.popover("Views", icon=":material/bookmarks:", width="stretch"):
        views = [view for view in kept.views(sae) if view.page == page]
        for view in views:
            link(page, markdown_text(f"{view.name} ({view.author})"), ":material/bookmark:", **parse_qs(view.query))
        if not views:
            st.caption("Nothing is saved yet.")
        if read_only():
            return
        author = author_box("views")
        with st.form("save view", border=False, clear_on_submit=True):
            name = st.text_input("Save this view as")
            save, remove = st.columns(2)
            if save.form_submit_button("Save", width="stretch"):
                with usage_errors():
                    kept.save_view(sae, name.strip(), page, current(), author)
                    st.rerun()
            gone = remove.form_submit_button("Remove", width="stretch", help="The view of this name is listed no more.")
            if gone and name.strip():
                with usage_errors():
                    kept.remove_view(sae, name.strip(), author)
                    st.rerun()


def current() -> str:
    """The state of the page that is shown, as it stands in its URL."""
    return urlencode([(name, value) for name in st.query_params if name not in PASSING for value in _all(name)])


def _all(name: str) -> list[str]:
    return st.query_params.get_all(name)
