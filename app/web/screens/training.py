"""Training: curves of running and finished trainings, how far those that run are, and what all of them came to."""

import streamlit as st

from app.cards import escape, markdown_text, wrapped
from app.cards_training import trainings_table
from app.figures_training import COUNTERS, USUAL, Look, logged, quantity
from app.settings_table import differing
from app.trainings import Trained, trainings
from app.web.choices import NONE, choose_some
from app.web.panels.training_live import POLL_SECONDS, live, read
from app.web.state import root
from store.run import list_runs

N_CHOSEN = 3
SHOWN = "show chosen"
# Between two looks for trainings that were begun or ended. (Streamlit would show a docstring here on the page.)
WATCH_SECONDS = 5
COLUMNS = {
    "run": st.column_config.TextColumn("Run", pinned=True),
    "state": st.column_config.TextColumn(
        "State", help="Interrupted: begun, not finished, and no process holds its folder."
    ),
    "variant": st.column_config.TextColumn("Variant"),
    "d_sae": st.column_config.NumberColumn("d_sae", format="%d"),
    "sparsity": st.column_config.TextColumn("Sparsity"),
    "heldout_fvu": st.column_config.NumberColumn(
        "FVU, held out", format="%.4f", help="Over all held-out rows of the classes trained on; no interval."
    ),
    "heldout_l0": st.column_config.NumberColumn("L0, held out", format="%.1f"),
    "fvu": st.column_config.NumberColumn("FVU, last batch", format="%.4f", help="Of the last logged step."),
    "n_dead": st.column_config.NumberColumn("Dead", format="%d", help="At the last logged step."),
    "step": st.column_config.NumberColumn("Step", format="%d"),
    "n_steps": st.column_config.NumberColumn("of", format="%d"),
    "lr": st.column_config.NumberColumn("lr", format="%.3g", help="Peak; empty: by width, 2e-4 / sqrt(d_sae / 2^14)."),
    "batch_size": st.column_config.NumberColumn("Batch", format="%d"),
    "seed": st.column_config.NumberColumn("Seed", format="%d"),
    "hook_point": st.column_config.TextColumn("Hook point"),
    "harvest": st.column_config.TextColumn("Harvest"),
    "seconds": st.column_config.NumberColumn("Seconds", format="%.0f", help="Of the process that finished it."),
    "finished_at": st.column_config.TextColumn("Finished at"),
}


def view() -> tuple[Look, list[str] | None]:
    """How curves are drawn, and which quantities are asked for by name; all usual ones where none is."""
    x, log, smooth, _ = st.columns([1.2, 1, 2, 1.6], vertical_alignment="bottom")
    counter = x.selectbox("Over", list(COUNTERS), key="x", bind="query-params", format_func=COUNTERS.__getitem__)
    log_y = log.toggle("Log axis", key="log", bind="query-params", help="Of the quantities that are positive.")
    weight = smooth.slider(
        "Smoothing (0 is none)",
        0.0,
        0.95,
        0.0,
        0.05,
        key="smooth",
        bind="query-params",
        help="Weight of the past in a running mean over logged steps; what was logged stays behind it, pale.",
    )
    return Look(x=counter, log_y=log_y, smoothing=weight), st.query_params.get_all("show") or None


def quantities(found: list[Trained], asked: list[str] | None) -> list[str]:
    """Those to draw; the person may choose others of what the logs hold."""
    names = logged({one.run.id: read(one.log) for one in found})
    if not names:
        return []
    unknown = sorted(set(asked or ()) - set(names) - {NONE})
    if unknown:
        st.warning(f"`show={markdown_text(unknown[0])}` in the address is not in the logs of the trainings chosen.")
    usual = [] if asked == [NONE] else names[: len(USUAL)]
    drawn = [name for name in names if name in (asked or ())] or usual
    st.session_state[SHOWN] = drawn
    st.pills(
        "Curves",
        names,
        selection_mode="multi",
        key=SHOWN,
        format_func=lambda name: quantity(name).label,
        on_change=keep_shown,
        label_visibility="collapsed",
    )
    return drawn


def keep_shown() -> None:
    """Put the chosen curves into the URL."""
    st.query_params["show"] = st.session_state[SHOWN] or NONE


def nothing_yet() -> None:
    """What to run where there is no training."""
    imported = len(list_runs(root(), "sae"))
    also = f" ({imported} imported, which have no log)" * bool(imported)
    st.info(
        f"No dictionary was trained here yet{also}. In a terminal, `monosem demo` trains one on a small model in some "
        "minutes; `monosem harvest` and `monosem train topk` train one of your own. It appears here while it runs."
    )


def chosen_ids(found: list[Trained]) -> list[Trained]:
    """The trainings that the URL names; the running ones, or the newest, where it names none."""
    by_id = {one.run.id: one for one in found}
    newest = [one.run.id for one in reversed(found)]
    default = [one.run.id for one in reversed(found) if one.running] or newest[:N_CHOSEN]
    titles = {
        one.run.id: f"{one.title}{'' if one.state == 'finished' else f', {one.state}'}" for one in reversed(found)
    }
    return [by_id[id_] for id_ in choose_some(st, "runs", "Trainings", titles, default)]


@st.fragment(run_every=WATCH_SECONDS)
def watch(seen: tuple[tuple[str, str], ...]) -> None:
    """Draw the page again once a training was begun, was killed or has finished."""
    if states(trainings(root())) != seen:
        st.rerun()


def states(found: list[Trained]) -> tuple[tuple[str, str], ...]:
    """What is watched."""
    return tuple((one.run.id, one.state) for one in found)


def tables(found: list[Trained], chosen: list[Trained]) -> None:
    """Settings in which the chosen differ, and all trainings with their figures."""
    if len(chosen) > 1:
        st.subheader("Settings that differ")
        differ = differing({one.short: one.run for one in chosen})
        if len(differ):
            st.dataframe(differ, hide_index=True)
        else:
            st.caption("None does.")
    st.subheader("All trainings")
    last = {one.run.id: log[-1] for one in found if (log := read(one.log))}
    st.dataframe(
        trainings_table(found, last),
        hide_index=True,
        column_config=COLUMNS,
        column_order=list(COLUMNS),
        placeholder="–",
    )
    st.html(wrapped(f'<div class="ms-small">Runs under <code>{escape(str(root()))}</code>.</div>'))


def show() -> None:
    """The whole page."""
    found = trainings(root())
    watch(states(found))
    if not found:
        nothing_yet()
        return
    chosen = chosen_ids(found)
    if chosen:
        look, asked = view()
        names = quantities(chosen, asked)
        polled = any(one.running for one in chosen)
        st.fragment(live, run_every=POLL_SECONDS if polled else None)(chosen, names, look)
    else:
        st.caption("No training is chosen: choose some above to see their curves.")
    tables(found, chosen)


st.title("Training")
show()
