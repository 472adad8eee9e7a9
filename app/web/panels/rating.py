"""People rate explanations one at a time, without being told where each is from; at the end they are told."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app.cards import markdown_text
from app.cards_interpret import rated_html, table_html
from app.interpretation.people import rating_rows, shown
from app.web.panels.notes import MOST_NAME, called, named
from app.web.sign_in import signed_in_as
from app.web.state import read_only, root, usage_errors
from app.workbench import Workbench
from autointerp.rating_sheets import contexts_of, make_sheet, scores_of, sheet_of
from autointerp.ratings import ARMS, Sheet, SheetConfig, rating_report
from store.errors import UsageError
from store.notes import BlindRating, Notes
from store.run import Run
from store.under_way import Survey, survey

SHEET = "sheet"
"""Of the URL."""
IN_THE_MIDDLE = "rating_in_the_middle"
SKIPPED, AGAIN = "rating_skipped", "rating_again"
WORDS = {1: "Does not fit", 2: "Fits badly", 3: "Fits partly", 4: "Fits well", 5: "Fits exactly"}
ABOUT = (
    "An explanation is shown beside contexts on which the latent fires, its words marked. Say how well it fits them. "
    "Who wrote it is not told, and some were written for another latent: that is found out when the sheet is done."
)
READ_ONLY = "This dashboard is read-only: nothing is rated from here. What people said is under **Agreement**."


def rating_panel(bench: Workbench) -> None:
    """Choose a sheet, rate it, and see what came of it."""
    st.session_state[IN_THE_MIDDLE] = False
    if read_only():
        st.info(READ_ONLY)
        return
    st.caption(ABOUT)
    author = _author()
    seen = survey(root())
    with usage_errors():
        run = _chosen(bench, seen)
        if run is None:
            _new_sheet(bench, seen)
        elif not author:
            st.info("Say who you are first: agreement is between people.")
        else:
            _rate(bench, run, author)


def _author() -> str:
    """Who rates. Once that is known there is no box any more, in which the keys that rate would be typed."""
    name = named()
    if signed_in_as():
        return name
    if name:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"You rate as **{markdown_text(name)}**.")
            st.button("Somebody else", on_click=called, args=("",))
    else:
        about = "Kept beside your ratings."
        st.text_input("Your name", key="rater", max_chars=MOST_NAME, help=about, on_change=_named)
    return name


def _named() -> None:
    called(st.session_state["rater"])


def _chosen(bench: Workbench, seen: Survey) -> Run | None:
    """The sheet that the URL names; None for a new one."""
    sheets = [run for run in seen.of_kind("sheet") if run.inputs.get("index") == bench.run.id]
    asked = st.query_params.get(SHEET)
    if asked:
        found = next((run for run in sheets if run.id == asked), None)
        if found is not None:
            st.button("Another sheet", icon=":material/arrow_back:", on_click=_leave)
            return found
        st.warning(markdown_text(f"There is no sheet {asked} of this index: choose one, or make one."))
    if sheets:
        st.subheader("Sheets", anchor=False)
        names = {run.id: f"{run.id} · {run.results['n']} explanations" for run in sheets}
        name, go_on = st.columns([4, 1], vertical_alignment="bottom")
        chosen = name.selectbox("Go on with", list(names), format_func=lambda sheet: names[sheet])
        go_on.button("Open", width="stretch", on_click=_open, args=(chosen,))
    return None


def _new_sheet(bench: Workbench, seen: Survey) -> None:
    st.subheader("A new sheet", anchor=False)
    runs = [run for run in seen.of_kind("explanations") if run.inputs.get("index") == bench.run.id]
    if not runs:
        st.info("Nothing is explained in this index yet: begin under **Start**.")
        return
    names = {run.id: f"{run.id} · {run.config.get('explainer', '?')}" for run in runs}
    with st.form("new sheet", border=False):
        chosen = st.multiselect("Explanations, mixed", list(names), [runs[0].id], format_func=lambda run: names[run])
        n_column, null_column, seed_column = st.columns(3)
        n = n_column.number_input("How many", 1, 1000, 20)
        share = null_column.number_input("Share of another latent", 0.0, 0.9, 0.2, 0.1)
        seed = seed_column.number_input("Seed of the order", 0, 2**31 - 1, 0)
        if st.form_submit_button("Make the sheet", type="primary"):
            cfg = SheetConfig(n=int(n), share_null=float(share), seed=int(seed))
            with st.spinner("Looking for contexts that no explainer saw …"):
                run = make_sheet(cfg, [each for each in runs if each.id in chosen], root())
            _open(run.id)
            st.rerun()


def _open(sheet: str) -> None:
    st.query_params[SHEET] = sheet


def _leave() -> None:
    st.query_params.pop(SHEET, None)
    st.session_state.pop(AGAIN, None)


def _rate(bench: Workbench, run: Run, author: str) -> None:
    sheet, contexts = sheet_of(run), contexts_of(run)
    every = [each for each in Notes(root()).blind_ratings(bench.dictionary) if each.sheet == sheet.id]
    rated = {each.place: each.value for each in every if each.author == author}
    skipped: set[int] = st.session_state.setdefault(SKIPPED, {}).setdefault((sheet.id, author), set())
    left = [each for each in sheet.shown if each.place not in rated and each.place not in skipped]
    n = len(sheet.items)
    n_skipped = len(skipped - rated.keys())
    st.progress((n - len(left)) / n, f"{len(rated)} of {n} rated, {n_skipped} skipped, {len(left)} to go")
    again = [each for each in sheet.shown if each.place == st.session_state.get(AGAIN)]
    if not left and not again:
        _reveal(sheet, every, rated, skipped)
        return
    st.session_state[IN_THE_MIDDLE] = True
    here = again[0] if again else left[0]
    st.html(rated_html(here.text, contexts[here.place]))
    columns = st.columns(len(WORDS) + 1)
    for column, (value, words) in zip(columns, WORDS.items(), strict=False):
        keep = (bench.dictionary, sheet, here.place, value, author)
        column.button(words, key=f"rate {value}", shortcut=str(value), on_click=_keep, args=keep, width="stretch")
    columns[-1].button("Skip", shortcut="s", on_click=skipped.add, args=(here.place,), width="stretch")
    last = max((each for each in every if each.author == author), key=lambda each: each.made_at, default=None)
    if last is not None and not again:
        st.button("Back to the last one", icon=":material/undo:", on_click=_again, args=(last.place,))


def _again(place: int) -> None:
    """Show one again that was rated: of two ratings the newer counts."""
    st.session_state[AGAIN] = place


def _keep(sae: str, sheet: Sheet, place: int, value: int, author: str) -> None:
    st.session_state.pop(AGAIN, None)
    try:
        sheet.rate(Notes(root()), sae, place, value, author)
    except UsageError as error:
        st.error(markdown_text(str(error)))


def _reveal(sheet: Sheet, every: Sequence[BlindRating], rated: dict[int, int], skipped: set[int]) -> None:
    """Where each was from, and how raters agree."""
    st.success("This sheet is done. Here is where each explanation was from.")
    if skipped - rated.keys():
        st.button("Rate those that were skipped", on_click=skipped.clear)
    others = pd.DataFrame([each._asdict() for each in every], columns=list(BlindRating._fields))
    means = others.groupby("place")["value"].agg(["mean", "count"]) if len(others) else pd.DataFrame()
    rows = [
        [
            str(item.latent),
            item.explainer,
            "its own" if item.arm == ARMS[0] else "of another",
            str(rated.get(place, "skipped")),
            f"{means.loc[place, 'mean']:.2f} ({means.loc[place, 'count']})" if place in means.index else "–",
            item.text,
        ]
        for place, item in enumerate(sheet.items)
    ]
    found = rating_report(every, scores_of(root(), sorted({each.run for each in every})))
    st.markdown("**What the ratings of this sheet say**, with 95 % intervals")
    told = pd.DataFrame([shown(row) for row in rating_rows(found)])
    st.html(table_html(list(told.columns), told.to_numpy().tolist()))
    if len({each.author for each in every}) < 2:
        st.caption("Agreement of raters takes two people: a second opens this same sheet under another name.")
    st.markdown("**Every explanation of it**")
    st.html(table_html(("latent", "explainer", "explanation is", "you", "mean (people)", "explanation"), rows))
