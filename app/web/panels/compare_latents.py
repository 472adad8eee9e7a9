"""The part of the page Compare with latents: which are the same, which only one has, which are the other's several."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from app.cards import feature_card_html, markdown_text, wrapped
from app.dictionaries import Dictionary, models_of, why_no_cosine
from app.figures_compare import best_figure
from app.latent_pairs import (
    KINDS,
    SIDES,
    Pairing,
    chosen_rows,
    from_directions,
    from_matching,
    index_of,
    known_of,
    matching_of,
    with_explanations,
)
from app.web import picking
from app.web.navigation import link
from app.web.state import root
from store.feature_index import FeatureIndex
from store.latents import latent_page, windows
from store.run import Run, find_run

PAIR = "pair"
"""Of the URL: `A-B`, a latent of each side; one may be missing."""
PAGE_SIZE = 50
SORTS = {"value": "value", "correlation": "correlation", "latent of a": "a", "latent of b": "b"}
ORDERS = {"high first": False, "low first": True}
BAND = "top"
MEASURES = {"decoder": "cosine of decoder rows", "correlation": "correlation of activations"}
COLUMNS = {
    "a": st.column_config.NumberColumn("a", format="%d", width="small"),
    "a_explanation": st.column_config.TextColumn("Explanation in a", width="medium"),
    "b": st.column_config.NumberColumn("b", format="%d", width="small"),
    "b_explanation": st.column_config.TextColumn("Explanation in b", width="medium"),
    "decoder": st.column_config.NumberColumn("Decoder cosine", format="%.3f"),
    "correlation": st.column_config.NumberColumn("Correlation", format="%.3f", help="Of activations, token by token."),
    "jaccard": st.column_config.NumberColumn("Jaccard", format="%.3f", help="Shared firings over all firings."),
}
SPLITS = {
    "side": st.column_config.TextColumn("Parent in"),
    "parent": st.column_config.NumberColumn("Parent", format="%d"),
    "explanation": st.column_config.TextColumn("Its explanation", width="medium"),
    "children": st.column_config.TextColumn("Children in the other", width="medium"),
    "coverage": st.column_config.NumberColumn("Covered", format="percent", help="Of the parent's firings."),
    "largest": st.column_config.NumberColumn("by one child", format="percent", help="The widest child alone."),
    "overlap": st.column_config.NumberColumn("Overlap", format="percent", help="Where two children or more fire."),
}


def latents(a: Dictionary, b: Dictionary) -> None:
    """Everything that is known of which latent is which."""
    indexes = {"a": index_of(root(), a), "b": index_of(root(), b)}
    found = matching_of(root(), a, b)
    if found is not None:
        run, swapped = found
        inputs = (run.inputs["b"], run.inputs["a"]) if swapped else (run.inputs["a"], run.inputs["b"])
        indexes = {side: find_run(root(), id_, "index") for side, id_ in zip(SIDES, inputs, strict=True)}
    pairing = _pairing(a, b, indexes)
    if pairing is None:
        return
    source(pairing, indexes)
    left, right = st.columns([4, 5])
    with left:
        counts(pairing)
    with right:
        figure = best_figure(pairing.best, pairing.chance, pairing.threshold, MEASURES[pairing.measure])
        st.plotly_chart(figure, key="best", alt="Best partners beside chance", config={"displayModeBar": False})
    known = {side: _known(indexes[side]) for side in SIDES}
    pair = pairs(pairing, known, (a.ref, b.ref))
    if pair is not None:
        side_by_side(pair, indexes)
    splits(pairing, known)


def _pairing(a: Dictionary, b: Dictionary, indexes: Mapping[str, Run | None]) -> Pairing | None:
    """From the newest matching, or else from the decoders; None where neither can be, and then it is said why."""
    found = matching_of(root(), a, b)
    if found is not None:
        return _matched(str(found[0].folder), *found)
    why = why_no_cosine(a, b, models_of(root()))
    if why:
        st.info(f"Their decoders cannot be compared: {markdown_text(why)}.")
        ways(indexes, a, b)
        return None
    try:
        with st.spinner("Comparing both decoders …"):
            pairing = _nearest(
                (str(a.folder), str(b.folder)), tuple(run.id if run else "" for run in indexes.values()), a, b, indexes
            )
    except ValueError as error:
        st.info(markdown_text(f"Their decoders cannot be compared: {error}."))
        return None
    if pairing is None:
        st.info("These dictionaries are too large to be compared while you wait.")
        ways(indexes, a, b)
    return pairing


@st.cache_resource(show_spinner=False, max_entries=8)
def _matched(folder: str, _run: Run, swapped: bool) -> Pairing:
    return from_matching(_run, swapped)


@st.cache_resource(show_spinner=False, max_entries=8)
def _nearest(
    folders: tuple[str, str],
    index_ids: tuple[str, ...],
    _a: Dictionary,
    _b: Dictionary,
    _indexes: Mapping[str, Run | None],
) -> Pairing | None:
    # Here, for it brings torch, which no other part of the page needs.
    from autointerp.matching.nearest import MOST_PRODUCTS, d_sae, nearest_directions, products

    if products(_a.folder, _b.folder) > MOST_PRODUCTS:
        return None
    alive = {side: _alive(run) for side, run in _indexes.items()}
    found = nearest_directions(_a.folder, _b.folder, alive["a"], alive["b"])
    return from_directions(found, d_sae(_a.folder), d_sae(_b.folder))


def _alive(run: Run | None) -> np.ndarray | None:
    return None if run is None else np.asarray(known_of(run)["n_fired"]) > 0


def _known(run: Run | None) -> pd.DataFrame:
    return known_of(run) if run is None else _explained(str(run.folder), _index(str(run.folder)).version(), run)


@st.cache_resource(show_spinner=False, max_entries=4)
def _explained(folder: str, version: str, _run: Run) -> pd.DataFrame:
    return known_of(_run)


@st.cache_resource(show_spinner=False, max_entries=8)
def _index(folder: str) -> FeatureIndex:
    return FeatureIndex(Path(folder))


def source(pairing: Pairing, indexes: Mapping[str, Run | None]) -> None:
    """Where the pairs are from, and how to know more."""
    above = f" above {pairing.threshold:.3f}, the 99% quantile of what chance gives" if pairing.threshold else ""
    measure = MEASURES[pairing.measure]
    if pairing.matching is not None:
        st.caption(
            f"From matching {pairing.matching.id}: one to one by {measure}{above}. Above chance is not the same latent."
        )
        return
    dead = "" if all(indexes.values()) else " Dead latents are among those of a side that has no index."
    st.caption(
        f"Computed from both decoders: matched are latents that are each other's nearest by {measure}{above}. "
        f"Above chance is not the same latent.{dead} What they fire on, and which are split, `monosem match` tells."
    )


def ways(indexes: Mapping[str, Run | None], a: Dictionary, b: Dictionary) -> None:
    """The commands that match them by what they fire on."""
    if a.step is not None or b.step is not None:
        st.caption("A step of a training has no index, so it cannot be matched by what it fires on.")
        return
    at = ["--root", str(root())]
    lines = [
        shlex.join(["monosem", "index", "--sae", one.run.id, *at])
        for one, run in zip((a, b), indexes.values(), strict=True)
        if run is None
    ]
    ids = [run.id if run else f"INDEX_OF_{side.upper()}" for side, run in indexes.items()]
    st.caption("Over the same text they can be matched by what they fire on:")
    st.code("\n".join([*lines, shlex.join(["monosem", "match", *ids, *at])]), language=None, wrap_lines=True)


def counts(pairing: Pairing) -> None:
    """How many latents of either side are the same, alone, taken or not judged."""
    by = "decoder or correlation" if pairing.matching is not None else "decoder"
    names = {
        "n": "latents",
        "matched": f"matched by {by}",
        "alone": "only there: none near above chance",
        "taken": "near one that is matched to another",
        "dead": "dead, or without a direction",
        "unjudged": "fire too rarely to judge",
    }
    rows = {name: [pairing.counts[side].get(key, 0) for side in SIDES] for key, name in names.items()}
    st.dataframe(pd.DataFrame.from_dict(rows, orient="index", columns=list(SIDES)), height="content")


def pairs(
    pairing: Pairing, known: Mapping[str, pd.DataFrame], refs: tuple[str, str]
) -> tuple[int | None, int | None] | None:
    """The table of pairs; the pair that is looked at, by a click or the URL."""
    st.subheader("Latents")
    kind = st.segmented_control("Which", list(KINDS), default=KINDS[0], key="which", bind="query-params", required=True)
    text_box, sort_box, order_box = st.columns([3, 2, 2.2], vertical_alignment="bottom")
    text = text_box.text_input("An explanation contains", key="q", bind="query-params").strip()
    sort = sort_box.selectbox("Sort by", list(SORTS), key="sort", bind="query-params")
    order = order_box.segmented_control(
        "Order", list(ORDERS), default="high first", key="order", bind="query-params", required=True
    )
    everything = with_explanations(pairing.pairs, known)
    rows = chosen_rows(everything, kind or KINDS[0], text, SORTS[sort], ascending=ORDERS[order or "high first"])
    n_pages = max(-(-len(rows) // PAGE_SIZE), 1)
    view = f"{kind} {text} {sort} {order}"
    page = st.pagination(n_pages, key=f"pairs page {view}") if n_pages > 1 else 1
    beside = "" if kind == KINDS[0] else " Beside each stands its nearest of the other, no nearer than chance."
    st.caption(f"{len(rows):,} of these. Click a row to see both latents below.{beside}")
    clicked = picking.picked("pairs")
    if clicked is not None:
        st.query_params[PAIR] = clicked
    pair_table(rows.iloc[(page - 1) * PAGE_SIZE : page * PAGE_SIZE], (*refs, view, page))
    return asked_pair(known)


def pair_table(rows: pd.DataFrame, view: tuple[str | int, ...]) -> None:
    """The table; a row of it is picked as its pair stands in the URL."""
    sides = (rows[side].astype(object) for side in SIDES)
    things = ["-".join("" if one is pd.NA else str(one) for one in pair) for pair in zip(*sides, strict=True)]
    filled = set(rows.dropna(axis=1, how="all").columns)
    told = [name for name in COLUMNS if name in SIDES or name in filled]
    picking.table(
        "pairs",
        rows,
        things,
        (*view, hash(tuple(things))),
        column_order=told,
        column_config=COLUMNS,
        placeholder="–",
        height="content" if len(rows) <= 10 else 400,
    )


def swapped(pair: str) -> str:
    """A pair as it stands in the URL, a for b."""
    return "-".join(reversed(pair.split("-")))


def asked_pair(known: Mapping[str, pd.DataFrame]) -> tuple[int | None, int | None] | None:
    """The pair that the URL names as `A-B`."""
    asked = st.query_params.get(PAIR)
    if not asked:
        return None
    parts = asked.split("-")
    fits = len(parts) == 2 and all(one == "" or (one.isdecimal() and len(one) < 10) for one in parts)
    if not fits:
        st.warning(f"`pair={markdown_text(asked)}` in the address is no pair of latents, such as 12-40.")
        return None
    a, b = (int(one) if one else None for one in parts)
    for side, one in zip(SIDES, (a, b), strict=True):
        if one is not None and len(known[side]) and one >= len(known[side]):
            st.warning(f"There is no latent {one} in {side}: choose 0 to {len(known[side]) - 1}.")
            return None
    return a, b


def side_by_side(pair: tuple[int | None, int | None], indexes: Mapping[str, Run | None]) -> None:
    """Both latents of a pair as the notebook shows them, with the way to their pages."""
    for (side, run), latent, column in zip(indexes.items(), pair, st.columns(2, gap="large"), strict=True):
        with column:
            if latent is None:
                st.caption(f"There is no such latent in {side}.")
            elif run is None:
                st.caption(f"Latent {latent} of {side}: nothing more is known of it, for {side} has no index.")
            else:
                link(
                    "feature", f"Latent {latent} of {side}", ":material/open_in_new:", index=run.id, latent=str(latent)
                )
                index = _index(str(run.folder))
                st.html(wrapped(feature_card_html(latent_page(index, latent), windows(index, latent, BAND))))


def splits(pairing: Pairing, known: Mapping[str, pd.DataFrame]) -> None:
    """Latents that are several of the other side."""
    if pairing.matching is None:
        return
    st.subheader(
        "Split latents",
        help="A parent of one dictionary that fires where any of several latents of the other fires. Covered far above "
        "what one child covers is a split: no child alone does what the parent did.",
    )
    if pairing.splits.empty:
        st.caption("No latent of one is several of the other.")
        return
    texts = {side: known[side]["explanation"].to_dict() for side in SIDES}
    rows = pairing.splits.assign(
        explanation=[texts[side].get(parent) for side, parent in pairing.splits[["side", "parent"]].to_numpy()]
    )
    st.dataframe(rows, hide_index=True, column_order=list(SPLITS), column_config=SPLITS, placeholder="–")
