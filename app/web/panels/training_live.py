"""The part of the page Training that is drawn again while a training runs: how far it is, and the curves."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from app.cards import markdown_text, wrapped
from app.cards_training import headway_line, key_html
from app.figures_training import MOST_POINTS, Look, curve_figure, quantity
from app.trainings import Trained, checkpoint_steps, headway
from store.followed import Followed
from store.run import Run

POLL_SECONDS = 2


@st.cache_resource(show_spinner=False, max_entries=200)
def _followed(path: str) -> Followed:
    return Followed(Path(path))


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a log; only what is new is read from the disk."""
    return _followed(str(path)).read()


def live(chosen: Sequence[Trained], names: Sequence[str], look: Look) -> None:
    """How far each training is that has not finished, and the curves of all."""
    logs = {one.title: read(one.log) for one in chosen}
    for one in chosen:
        if one.state != "finished":
            unfinished(one, logs[one.title])
    curves(logs, names, look)
    if len({one.run.config.get("variant") for one in chosen}) > 1:
        st.caption("Variants differ: each has a loss of its own. Compare their FVU at their L0, not their losses.")


def unfinished(one: Trained, log: Sequence[Mapping[str, Any]]) -> None:
    """How far a training is; of one that was killed, how it goes on."""
    found = headway(one, log, read(one.beats))
    with st.container(border=True):
        st.markdown(f"**{markdown_text(one.title)}** · {one.state}")
        line = markdown_text(headway_line(found, time.time()))
        if one.running:
            st.progress(found.share or 0.0, line)
            return
        st.caption(line)
        steps = checkpoint_steps(one)
        where = f"from its checkpoint at step {steps[-1]:,}" if steps else "from its beginning: it has no checkpoint"
        st.markdown(f"No process is at it: it was killed, or stopped by an error. Run again, it goes on {where}:")
        st.code(
            _command(str(one.run.folder), one.run) or "the command or script that began it",
            language=None,
            wrap_lines=True,
        )


@st.cache_data(show_spinner="Finding the command …", max_entries=50)
def _command(folder: str, _run: Run) -> str | None:
    # Here, for it brings all variants and torch, which no other part of the page needs.
    from app.train_command import train_command

    return train_command(_run)


def curves(logs: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str], look: Look) -> None:
    """Two figures in a row, and which line is which above them."""
    if not names:
        st.caption("Nothing is logged yet, or no curve is chosen.")
        return
    st.html(wrapped(key_html(list(logs))))
    for start in range(0, len(names), 2):
        for name, column in zip(names[start : start + 2], st.columns(2), strict=False):
            shown = quantity(name)
            column.plotly_chart(
                curve_figure(name, logs, look),
                key=f"curve {name}",
                alt=f"{shown.label} over the trainings",
                config={"displayModeBar": False},
            )
    notes = [f"smoothed by a running mean of weight {look.smoothing:g}, the logged values pale"] * bool(look.smoothing)
    notes += [f"every n-th step of logs longer than {MOST_POINTS:,} lines"] * any(
        len(log) > MOST_POINTS for log in logs.values()
    )
    st.caption(f"Each point is one batch of training rows{''.join(f'; {note}' for note in notes)}.")
