"""The part of the page Compare with what was measured: figures side by side, and among all others of the hook point."""

import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app.cards import markdown_text
from app.dictionaries import Dictionary
from app.evaluation.evaluated import Evaluated
from app.figures_compare import TRADES, trade_figure
from app.figures_training import COUNTERS, quantity
from app.side_by_side import APART, Measurements, figures_table, measurements, trade
from app.trainings import LOG
from app.web.panels.training_live import read
from app.web.state import root

COLUMNS = {
    "part": st.column_config.TextColumn("Part", pinned=True),
    "metric": st.column_config.TextColumn("Figure", pinned=True),
    "class": st.column_config.TextColumn("Of"),
    "setting": st.column_config.TextColumn("Setting"),
    "arm": st.column_config.TextColumn("Control", help="Empty: the dictionary itself."),
    "a": st.column_config.TextColumn("a"),
    "a_interval": st.column_config.TextColumn("a, 95%"),
    "b": st.column_config.TextColumn("b"),
    "b_interval": st.column_config.TextColumn("b, 95%"),
    "told": st.column_config.TextColumn(
        "Intervals tell",
        help="Which is lower, where both 95% intervals lie apart. Where they overlap there may be a difference all "
        "the same: both were measured on the same text. Empty: no interval, or not comparable.",
    ),
    "n": st.column_config.TextColumn("On", help="How many units each figure is over."),
}


def figures(a: Dictionary, b: Dictionary) -> None:
    """Everything that was measured of both."""
    found = measurements(root(), a, b)
    for side, one, measured in (("a", a, found.a), ("b", b, found.b)):
        if measured is None:
            unmeasured(side, one)
    if a.step is not None or b.step is not None:
        at_steps({"a": a, "b": b})
    if found.a or found.b:
        warnings(found)
        table(found)
    reference = found.a or found.b
    if reference is not None:
        trades(reference, {"a": a.ref, "b": b.ref})


def unmeasured(side: str, one: Dictionary) -> None:
    """How to measure it."""
    if one.step is not None:
        st.caption(f"{side} is a step of a training, and steps are not evaluated: only what was logged then is known.")
        return
    st.info(f"{side} has not been evaluated. This does it, on the harvest that it was trained on:")
    st.code(shlex.join(["monosem", "evaluate", one.run.id, "--root", str(root())]), language=None, wrap_lines=True)


def at_steps(both: Mapping[str, Dictionary]) -> None:
    """What was logged at the steps, or at the end, of the trainings."""
    lines = {side: logged_at(one) for side, one in both.items()}
    names = dict.fromkeys(name for line in lines.values() for name in line)
    rows = [
        {"figure": quantity(name).label if name not in COUNTERS else COUNTERS[name]}
        | {side: line.get(name) for side, line in lines.items()}
        for name in names
    ]
    st.subheader("What was logged", help="On the training batch of that step: no held-out text, and no interval.")
    st.dataframe(pd.DataFrame(rows), hide_index=True, height="content", placeholder="–")


def logged_at(one: Dictionary) -> dict[str, Any]:
    """The last line of the log up to the dictionary's step."""
    lines = [line for line in read(one.run.folder / LOG) if one.step is None or line.get("step", 0) <= one.step]
    return lines[-1] if lines else {}


def warnings(found: Measurements) -> None:
    """Whether the figures may be compared."""
    if found.a is None or found.b is None:
        return
    ids = {found.a.activations_run.id, found.b.activations_run.id}
    if len(ids) > 1:
        st.warning(
            f"Measured on two harvests: a on {found.a.activations_run.id}, b on {found.b.activations_run.id}. "
            + ("What differs is below." if found.differences else "They are of the same text, model and settings.")
        )
    parts = found.unlike_parts()
    for difference in found.differences:
        apart = [part for part in parts if difference in parts[part]]
        if apart:
            values = " against ".join(markdown_text(value) for value in difference.values)
            st.warning(
                f"{markdown_text(difference.name)} differ ({values}): no difference is marked in {', '.join(apart)}."
            )


def table(found: Measurements) -> None:
    """Figures side by side."""
    st.subheader("Measured on held-out text")
    parts = list(dict.fromkeys(part for one in (found.a, found.b) if one for part in one.runs))
    left, right = st.columns([5, 2], vertical_alignment="bottom")
    shown = left.pills("Parts", parts, selection_mode="multi", key="parts", bind="query-params")
    controls = right.toggle("Controls and baselines too", key="controls", bind="query-params")
    rows = figures_table(found, controls=controls)
    if shown:
        rows = rows[rows["part"].isin(shown)]
    columns = [name for name in COLUMNS if name != "arm" or controls]
    st.dataframe(
        rows,
        hide_index=True,
        column_order=columns,
        column_config=COLUMNS,
        height="content" if len(rows) <= 15 else 560,
        placeholder="–",
    )
    told = sum(text in APART.values() for text in rows["told"])
    st.caption(f"{len(rows)} figures; the intervals tell a from b in {told}.")


def trades(reference: Evaluated, chosen: dict[str, str]) -> None:
    """What each dictionary of the hook point pays for what, a and b among them."""
    st.subheader("Among all of this hook point")
    notes: dict[str, None] = {}
    for (title, (across, up, more)), column in zip(TRADES.items(), st.columns(len(TRADES)), strict=True):
        found = trade(root(), reference, across, up)
        column.caption(title)
        left = {f"{found.n_unlike} measured on other text, on other token classes or in other settings": found.n_unlike}
        left[f"{found.n_unmeasured} without both figures"] = found.n_unmeasured
        notes |= {f"{title} leaves out {note}": None for note, n in left.items() if n}
        if len(found.points) < 2:
            column.info(
                "Fewer than two dictionaries have both figures, measured alike: `monosem evaluate` measures more."
            )
            continue
        figure = trade_figure(found.points, chosen, more_is_better=more)
        column.plotly_chart(figure, key=f"trade {title}", alt=title, config={"displayModeBar": False})
    also = "".join(f" {note}." for note in notes)
    st.caption(f"Bars are 95% intervals; the dotted line joins those that none betters in both figures.{also}")
