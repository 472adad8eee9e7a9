"""What people and models said of a latent, and what stands behind it: explanations, scores, single judgements."""

from itertools import groupby
from typing import Any

import streamlit as st

from app.cards import explanations_html, markdown_text, number, wrapped
from app.cards_feature import arms_html, judgements_html, right, shown_html
from app.workbench import Workbench
from store.evidence import candidates, judgements, replies
from store.latents import LatentPage

FEW = 8
"""Judgements that need no box to scroll in."""


def explanation_panel(page: LatentPage) -> bool:
    """Explanations with their scores, unless the person wants to label first; whether they are shown."""
    title, blind = st.columns([3, 2], vertical_alignment="center")
    title.subheader("Explanation")
    hidden = blind.toggle("Hide", key="blind", bind="query-params", help="To label without having read explanations.")
    if hidden:
        st.caption("Hidden: look at the contexts, and write a label first.")
    else:
        st.html(wrapped(explanations_html(page)))
    return not hidden


@st.fragment
def evidence_panel(bench: Workbench, page: LatentPage) -> None:
    """Behind a fold, and fetched when that is opened: nulls, what explainers saw, and each judgement."""
    if not page.explanations:
        return
    with st.expander("Evidence", icon=":material/fact_check:", key="evidence", bind="query-params") as fold:
        if not fold.open:
            return
        if page.scores:
            st.html(arms_html(page))
        for explanation in page.explanations:
            st.html(shown_html(explanation))
            _replies(bench, explanation["calls"] or [], "The explainer's replies")
        _candidates(bench, page)
        _judged(bench, page)


def _candidates(bench: Workbench, page: LatentPage) -> None:
    found = candidates(bench.index, page.latent)
    if found:
        lines = [f"{number(each['value'])} (n = {each['n_judged']}): {each['text']}" for each in found]
        st.caption("Chosen from, by the score on documents of their own:")
        st.markdown("\n".join(f"- {markdown_text(line)}" for line in lines))


def _judged(bench: Workbench, page: LatentPage) -> None:
    """The single judgements of one scorer and arm."""
    rows = judgements(bench.index, page.latent)
    if not rows:
        st.caption("No single judgements are stored.")
        return
    groups = {key: list(group) for key, group in groupby(rows, _whose)}
    order = sorted(groups, key=lambda key: (key[2] != "explanation", key))
    chosen = st.selectbox("Judgements", order, key=f"judged {page.latent}", format_func=lambda key: " · ".join(key[:3]))
    st.caption(_counted(groups[chosen]))
    with st.container(height=420 if len(groups[chosen]) > FEW else "content"):
        st.html(judgements_html(groups[chosen]))
    _replies(bench, [row["call"] for row in groups[chosen] if row["call"]], "The judge's replies")


def _whose(row: dict[str, Any]) -> tuple[str, str, str, str]:
    return row["explainer"], row["scorer"], row["arm"], row["run"]


def _counted(rows: list[dict[str, Any]]) -> str:
    verdicts = [right(row) for row in rows]
    unread = sum(row["answer"] is None for row in rows)
    told = [verdict for verdict in verdicts if verdict is not None]
    counted = f"{sum(told)} of {len(told)} right" if told else "answers are numbers, not yes or no"
    return f"{len(rows)} examples: {counted}; {unread} could not be read."


def _replies(bench: Workbench, keys: list[str], title: str) -> None:
    found = replies(bench.index, list(dict.fromkeys(keys)))
    if not found:
        return
    with st.popover(f"{title} ({len(found)})", icon=":material/forum:"):
        for each in found:
            st.caption(markdown_text(f"{each['model']}, prompt {each['prompt']}"))
            st.code(each["request"], language=None, wrap_lines=True, height=200)
            st.code(each["reply"], language=None, wrap_lines=True)
