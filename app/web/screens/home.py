"""Home: every run and what made it, how good each dictionary is, what is in progress, and the way to all of it."""

import json

import streamlit as st

from app.cards import markdown_text
from app.health import health
from app.web.panels.dictionaries import dictionaries_panel
from app.web.panels.index import index_panel
from app.web.panels.jobs import jobs_panel
from app.web.panels.runs import runs_panel
from app.web.state import INDEX, chosen_index, root, usage_errors, workbench
from store.errors import UsageError
from store.run import Run
from store.under_way import Survey, survey

BOX = "home_index"
NO_RUNS = """There are no runs in `{root}` yet. In a terminal, one of these makes some:

- `monosem demo --recipe tiny --out {shown}`: the whole path on a small random model, in seconds, with nothing to fetch;
- `monosem demo --out {shown}`: the whole path on SmolLM2 135M, in minutes on two cores;
- `monosem harvest --root {shown} …`, then `train`, `evaluate` and `index`: on a model and texts of your own.

This page shows what is there as soon as something is: load it again."""
NO_INDEX = """There is no feature index yet, and the other pages are about one. `monosem index --root {shown}` makes one
of the newest dictionary."""


def index_choice(indexes: list[Run]) -> None:
    """Which index the other pages show."""
    names = {run.id: _named(run) for run in indexes}
    ids = list(names)
    # Whatever chose it, a row, a link or the URL, stands in the box.
    st.session_state[BOX] = _resolved(ids)
    st.selectbox(
        "Index shown on all pages",
        ids,
        format_func=lambda index: names[index],
        key=BOX,
        on_change=_choose,
        placeholder="choose one",
    )


def _resolved(ids: list[str]) -> str | None:
    """The index that is looked at now, by its whole id."""
    try:
        asked = chosen_index()
    except UsageError:
        return None  # said below, where the index would stand
    if asked == "latest":
        return ids[0]
    found = [each for each in ids if each.startswith(asked)]
    return found[0] if len(found) == 1 else None


def _choose() -> None:
    st.session_state[INDEX] = st.query_params[INDEX] = st.session_state[BOX]


def _named(run: Run) -> str:
    of = f"sae {run.inputs['sae']}" if "sae" in run.inputs else "imported"
    return f"{run.id} · {of} · {run.manifest['finished_at'][:16].replace('T', ' ')}"


def broken(seen: Survey) -> None:
    """Runs that cannot be read, by name."""
    for each in seen.broken:
        st.warning(markdown_text(f"Left out: {each.folder.parent.name}/{each.folder.name}. {each.why}"))


def show() -> None:
    """The page."""
    st.title("Home")
    seen = survey(root())
    shown = json.dumps(str(root()))[1:-1]
    if not (seen.finished or seen.unfinished or seen.broken):
        st.info(NO_RUNS.format(root=root(), shown=shown), icon=":material/terminal:")
    st.subheader("In progress")
    jobs_panel(root())
    broken(seen)
    indexes = seen.of_kind("index")
    dictionaries_panel(health(seen, root()))
    if indexes:
        st.subheader("This index")
        index_choice(indexes)
        with usage_errors():
            index_panel(workbench())
    elif seen.finished:
        st.info(NO_INDEX.format(shown=shown))
    runs_panel(seen)


show()
