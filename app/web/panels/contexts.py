"""The contexts of a latent by band, each from a snippet to its whole document."""

from collections.abc import Sequence

import streamlit as st

from app.cards import band_label, markdown_text
from app.cards_feature import document_html, document_line, one_context_html, snippet
from app.web.state import usage_errors
from app.workbench import Workbench
from store.documents import document_at
from store.errors import UsageError
from store.latents import LatentPage, Window

KINDS: dict[str, tuple[str, str]] = {
    "top": ("Strongest", "Its strongest peaks."),
    "q": ("Quantiles", "Peaks drawn from bands of equal counts, the strongest band first: how it fires as a rule."),
    "v": ("Values", "Peaks drawn from bands of equal widths of value, the strongest first: its whole range."),
    "near": ("Near misses", "Silent tokens on which little was missing; the value is the pre-activation."),
    "silent": ("Silent", "Silent tokens that are ones on which it fires elsewhere."),
}
"""Kinds of bands in order: what their tab is called, and what is in it."""
SNIPPET = 8
"""Tokens of a snippet on either side of the peak."""
ZOOMS = ("snippet", "window")
FEW = 10
"""Contexts of a tab that are drawn before more are asked for."""
DOCUMENT = "doc"
"""Of the URL: the token whose document is open, as SEQUENCE.POSITION."""


@st.fragment
def contexts_panel(bench: Workbench, page: LatentPage) -> None:
    """The tabs, or the one document that is open."""
    if st.query_params.get(DOCUMENT):
        st.subheader("Document")
        with usage_errors():
            _document(bench, page)
        return
    st.subheader("Contexts")
    contexts = bench.windows(page.latent)
    if not contexts:
        st.caption("No context is stored.")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        zoom = st.segmented_control(
            "Length", ZOOMS, default="window", key="zoom", bind="query-params", label_visibility="collapsed"
        )
        breaks = st.toggle("Break lines where the text does", key="breaks", bind="query-params")
    kinds = {_kind(window) for window in contexts}
    there = {kind: names for kind, names in KINDS.items() if kind in kinds}
    tabs = st.tabs([title for title, _ in there.values()], key="band", bind="query-params")
    for (kind, (_, about)), tab in zip(there.items(), tabs, strict=True):
        if tab.open:
            with tab:
                st.caption(about)
                chosen = [window for window in contexts if _kind(window) == kind]
                _listed(page, chosen, zoom == "snippet", breaks=breaks)


def _kind(window: Window) -> str:
    return window.band.rstrip("0123456789")


def _listed(page: LatentPage, contexts: Sequence[Window], short: bool, *, breaks: bool) -> None:
    """Contexts below the names of their bands, each with a way to its document."""
    bands = list(dict.fromkeys(window.band for window in contexts))
    key = f"all contexts {bands[0]} {page.latent}"
    most = len(contexts) if len(bands) > 1 or st.session_state.get(key) else FEW
    for band in bands:
        if len(bands) > 1:
            st.markdown(f"**{markdown_text(band)}** – {markdown_text(band_label(band, bands))}")
        for place, window in enumerate(each for each in contexts[:most] if each.band == band):
            text, way = st.columns([16, 1], gap="small", vertical_alignment="center")
            shown = snippet(window, SNIPPET) if short else window
            text.html(one_context_html(shown, page.statistics["max"], breaks=breaks))
            way.button(
                "",
                key=f"open {band} {place}",
                icon=":material/article:",
                type="tertiary",
                help=f"The whole of document {window.doc_id}",
                on_click=_open,
                args=(window,),
            )
    if most < len(contexts):
        st.button(f"All {len(contexts)}", key=key + " button", on_click=lambda: st.session_state.update({key: True}))


def _open(window: Window) -> None:
    st.query_params[DOCUMENT] = f"{window.seq}.{window.start + window.peak}"


def close_document() -> None:
    """Show contexts again."""
    st.query_params.pop(DOCUMENT, None)


def _document(bench: Workbench, page: LatentPage) -> None:
    """The open document, with what this latent does on it.

    Raises:
        UsageError: the URL names no token.
    """
    st.button("Back to the contexts", on_click=close_document, icon=":material/arrow_back:")
    seq, _, pos = st.query_params[DOCUMENT].partition(".")
    if not (seq.isdecimal() and pos.isdecimal()) or max(len(seq), len(pos)) > 9:
        raise UsageError(f"'{st.query_params[DOCUMENT][:40]}' names no token: open a document from one of its contexts")
    document = document_at(bench.index, page.latent, int(seq), int(pos))
    st.markdown(f"**{markdown_text(document.title or 'untitled')}**")
    st.caption(markdown_text(document_line(document, page.statistics["event_share"] >= 1)))
    st.html(document_html(document, page.statistics["max"]))
