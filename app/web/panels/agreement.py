"""Whether scorers agree with one another, with what is so, and with people."""

import pandas as pd
import streamlit as st

from app.cards import markdown_text
from app.cards_interpret import table_html
from app.estimates import figure, interval
from app.interpretation.people import rating_rows, shown
from app.interpretation.results import can_be_reported
from app.web.panels.interpret_results import Report, chosen_explanations, report_of, section_body
from app.web.panels.rating import IN_THE_MIDDLE
from app.web.state import root, usage_errors
from app.workbench import Workbench
from autointerp.confusion import Confusion, Rate, confusions
from autointerp.rating_sheets import scores_of
from autointerp.ratings import rating_report
from store.notes import Notes
from store.under_way import survey

COLUMNS = ("scorer", "fires: yes", "fires: no", "silent: yes", "silent: no", "not read")
RATES = ("said yes where it fires", "95 %", "said no where it is silent", "95 %")
UNREVEALED = "What people said is shown when the sheet that you are rating is done: it would tell you what to say."
UNRATED = (
    "Nobody has rated explanations of this dictionary yet: do it under **Rate**, or with "
    "`monosem agreement --sheet ratings.csv`."
)


def agreement_panel(bench: Workbench) -> None:
    """All three."""
    seen = survey(root())
    explanations = chosen_explanations(bench, seen)
    with usage_errors():
        if explanations is not None and can_be_reported(seen, explanations):
            _scorers(bench, report_of(bench, seen, explanations))
        else:
            st.info("There are no scores of this index yet: begin under **Start**.")
    with usage_errors():
        _people(bench)


def _scorers(bench: Workbench, report: Report) -> None:
    st.caption(markdown_text(f"Of explanations {report.of.explanations.id}: choose others under Results."))
    section = next((each for each in report.page.sections if each.id == "agreement"), None)
    st.subheader("Scorers with one another", anchor=False)
    if section is None:
        st.info("One scorer has nobody to agree with: name several to compare them.")
    else:
        section_body(section)
    st.subheader("Judges with what is so", anchor=False)
    found = confusions(bench.index, report.of)
    if not found:
        st.info("No scorer of these asks for a yes or a no: `detection` and `fuzzing` do.")
        return
    st.caption(
        "Answers about contexts on which a latent fires, and on which it is silent. The intervals take answers as "
        "independent: they are too narrow where latents differ much."
    )
    st.html(table_html((*COLUMNS, *RATES), [_confused(report.of.labels[each.run], each) for each in found]))


def _confused(label: str, each: Confusion) -> list[str]:
    counts = (each.hits, each.misses, each.false_alarms, each.rejections, each.n_unread)
    return [label, *(f"{n:,}" for n in counts), *_rate(each.sensitivity), *_rate(each.specificity)]


def _rate(rate: Rate) -> list[str]:
    return [figure(rate.value), interval(rate.interval)]


def _people(bench: Workbench) -> None:
    st.subheader("People", anchor=False)
    if st.session_state.get(IN_THE_MIDDLE):
        st.info(UNREVEALED)
        return
    ratings = Notes(root()).blind_ratings(bench.dictionary)
    if not ratings:
        st.info(UNRATED)
        return
    raters, places = {each.author for each in ratings}, {(each.sheet, each.place) for each in ratings}
    st.caption(f"{len(ratings):,} ratings of {len(places):,} explanations by {len(raters):,} people.")
    found = rating_report(ratings, scores_of(root(), sorted({each.run for each in ratings})))
    frame = pd.DataFrame([shown(row) for row in rating_rows(found)])
    st.html(table_html(list(frame.columns), frame.to_numpy().tolist()))
