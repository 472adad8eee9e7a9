"""What can be taken along from the page of a latent: its link, vectors, contexts and card."""

from collections.abc import Callable
from urllib.parse import urlencode

import streamlit as st

from app.downloads import card_page, contexts_csv, vectors, vectors_csv, vectors_safetensors
from app.web.state import worker_of
from app.workbench import Workbench

FILES: dict[str, tuple[str, str]] = {
    "Card (HTML)": ("latent-{}.html", "text/html"),
    "Contexts (CSV)": ("latent-{}-contexts.csv", "text/csv"),
    "Vectors (safetensors)": ("latent-{}.safetensors", "application/octet-stream"),
    "Vectors (CSV)": ("latent-{}-vectors.csv", "text/csv"),
}
"""By what is written on the button: the file's name and kind."""


def take_panel(bench: Workbench, latent: int) -> None:
    """A button for each file, which is made when it is asked for."""
    makers = _makers(bench, latent)
    with st.container(horizontal=True):
        for label, (name, kind) in FILES.items():
            st.download_button(
                label, makers[label], name.format(latent), kind, icon=":material/download:", on_click="ignore"
            )


def link_panel(bench: Workbench) -> None:
    """The address of what is shown, with a button that copies it."""
    with st.popover("Link", icon=":material/link:"):
        query = [(name, value) for name in st.query_params for value in st.query_params.get_all(name)]
        if not any(name == "index" for name, _ in query):
            # What the server shows first may be another index tomorrow.
            query.append(("index", bench.run.id))
        st.code(f"{st.context.url or ''}?{urlencode(query)}", language=None, wrap_lines=True)


def _makers(bench: Workbench, latent: int) -> dict[str, Callable[[], str | bytes]]:
    about = {"sae": bench.dictionary, "latent": str(latent), "hook_point": bench.hook_point}

    def directions():
        # A thread without a session makes the file.
        return worker_of(bench.run).ask("directions", vectors, latent=latent).result()

    return {
        "Card (HTML)": lambda: card_page(bench, latent),
        "Contexts (CSV)": lambda: contexts_csv(bench.windows(latent)),
        "Vectors (safetensors)": lambda: vectors_safetensors(directions(), about),
        "Vectors (CSV)": lambda: vectors_csv(directions()),
    }
