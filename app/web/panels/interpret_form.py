"""The form that starts an interpretation, and the jobs it has started."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import jobs
from app.cards import markdown_text
from app.interpretation.asked import ADDRESSES, LANGUAGE_MODELS, Asked, Which, command, keys_of, n_chosen
from app.job_commands import LLM
from app.web.panels.jobs import POLL_SECONDS, jobs_panel
from app.web.state import read_only, root, usage_errors
from app.workbench import Workbench
from autointerp.arms import NULLS
from autointerp.embedders import EMBEDDERS
from autointerp.explain import EXPLAINERS
from autointerp.llm import BACKENDS
from autointerp.llm.config import FREE
from autointerp.scorers import SCORERS
from store.errors import UsageError

DRAW, LIST, CONDITION = "At random", "List", "Condition"
CAPS = {"calls": "max-calls-per-job", "tokens": "max-tokens-per-job", "usd": "max-usd-per-job"}
FORECASTING = "forecasting"
READ_ONLY = "This dashboard is read-only: nothing is started from here. Jobs and their results can be looked at."
NO_JUDGE = "`scripted` is a judge of known errors in this process, for trying things out: its words mean nothing."


def form_panel(bench: Workbench) -> None:
    """The form, what it would run, and what is running."""
    if read_only():
        st.info(READ_ONLY)
    else:
        _form(bench)
    st.subheader("Jobs")
    jobs_panel(root(), all_of_them=True)


def _form(bench: Workbench) -> None:
    with usage_errors():
        which = _which(bench)
        asked = _asked(which)
        argv = command(asked, bench.run)
        st.caption("This is the command that is started, and that may be typed in a terminal instead:")
        st.code(jobs.shell(argv), language="bash", wrap_lines=True)
        forecast, begin, _ = st.columns([1, 1, 3])
        about = "Goes through a few of the latents with a stand-in for the model: it sends nothing and needs no key."
        if forecast.button("Forecast", icon=":material/query_stats:", help=about, width="stretch"):
            started = jobs.start(root(), [*argv, "--dry-run"])
            st.session_state["forecast"] = started.id
        if begin.button("Start", type="primary", icon=":material/play_arrow:", width="stretch"):
            jobs.start(root(), argv)
            st.toast("Started: it is listed below, and goes on when this page is closed.")
        st.session_state[FORECASTING] = _is_forecasting()
        st.fragment(_forecast, run_every=POLL_SECONDS if st.session_state[FORECASTING] else None)(argv)


def _which(bench: Workbench) -> Which:
    """Which latents."""
    st.subheader("Which latents")
    way = st.segmented_control(
        "Latents",
        [DRAW, LIST, CONDITION],
        default=DRAW,
        key="which",
        bind="query-params",
        label_visibility="collapsed",
    )
    if way == LIST:
        text = st.text_input("Their numbers", key="latents", bind="query-params", placeholder="3 17 256")
        which = Which(listed=text)
    elif way == CONDITION:
        about = "A condition over the columns of `features`, as on the page Features."
        text = st.text_input("Condition", key="where", bind="query-params", placeholder="density < 0.001", help=about)
        which = Which(where=text)
    else:
        n = st.number_input("How many", 1, 100_000, 30, key="n", bind="query-params")
        which = Which(n=int(n))
        st.caption("From those with enough contexts on both sides: some to explain from, others to judge on.")
    if way in (LIST, CONDITION):
        st.caption(f"{n_chosen(which, bench):,} of {bench.d_sae:,} latents.")
    return which


def _asked(which: Which) -> Asked:
    """Everything else."""
    st.subheader("How")
    left, right = st.columns(2)
    explainers = [name for name in EXPLAINERS if name != "noop"]
    explainer = left.selectbox(
        "Explainer", explainers, index=explainers.index("tokens"), key="explainer", bind="query-params"
    )
    embedder = right.selectbox(
        "Embedder", list(EMBEDDERS), key="embedder", bind="query-params", help="Compares texts for `embedding`."
    )
    scorers = left.multiselect("Scorers", list(SCORERS), ["embedding"], key="scorers", bind="query-params")
    nulls = right.multiselect(
        "Nulls", list(NULLS), list(NULLS[:-1]), key="nulls", bind="query-params", help="Words that know nothing of it."
    )
    llm = _language_model(explainer, scorers)
    with st.expander("Samples and seed"):
        columns = st.columns(4)
        n_explain = columns[0].number_input("Contexts to explain from", 1, 1000, 30, key="n_explain")
        n_score = columns[1].number_input("Contexts to judge on", 1, 1000, 50, key="n_score")
        n_null = columns[2].number_input("Latents with all nulls", 0, 100_000, 50, key="n_null", help="0: all.")
        seed = columns[3].number_input("Seed", 0, 2**31 - 1, 0, key="seed")
    sample = {"n-explain": int(n_explain), "n-score": int(n_score), "n-null": int(n_null), "seed": int(seed)}
    return Asked(which, str(explainer), tuple(scorers), tuple(nulls), str(embedder), llm, sample)


def _language_model(explainer: str, scorers: list[str]) -> Mapping[str, Any]:
    """Backend, model, prices and caps; nothing where no language model is asked."""
    if explainer not in LANGUAGE_MODELS and not LANGUAGE_MODELS.intersection(scorers):
        st.caption("No language model is asked by this choice.")
        return {}
    st.markdown("**Language model**")
    left, middle, right = st.columns(3)
    backend = left.selectbox(
        "Backend", list(BACKENDS), index=list(BACKENDS).index("scripted"), key="backend", bind="query-params"
    )
    if backend == "scripted":
        st.caption(NO_JUDGE)
        return {"backend": backend}
    found: dict[str, Any] = {"backend": backend, "model": middle.text_input("Model", key="model", bind="query-params")}
    if backend != "local":
        about = "Of the service; empty for the backend's own."
        found["base-url"] = right.text_input("Address", key="base_url", bind="query-params", help=about)
        _keys(str(backend), found["base-url"])
    return {name: value for name, value in (found | _limits(str(backend))).items() if value not in ("", None)}


def _keys(backend: str, url: str) -> None:
    """Where the key comes from: it is neither typed in nor shown here."""
    names = keys_of(url or ADDRESSES.get(backend, ""))
    told = ", ".join(f"`{name}` is {'set' if there else 'not set'}" for name, there in names.items())
    st.caption(f"Keys come from the environment in which this dashboard was started, never from this page: {told}.")


def _limits(backend: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    calls, tokens, usd, price_in, price_out = st.columns(5)
    about = "Of each run of this job, over all times it is started; it stops there and goes on when that is raised."
    found[CAPS["calls"]] = calls.number_input("Most calls", 0, None, None, key="cap_calls", help=about)
    found[CAPS["tokens"]] = tokens.number_input("Most tokens", 0, None, None, key="cap_tokens", help=about)
    if backend not in FREE:
        found[CAPS["usd"]] = usd.number_input("Most US$", 0.0, None, None, key="cap_usd", help=about)
        for column, side in ((price_in, "in"), (price_out, "out")):
            label = f"US$ per million {side}"
            found[f"usd-per-million-{side}"] = column.number_input(label, 0.0, None, None, key=f"price_{side}")
    assert found.keys() <= LLM.keys()
    return found


def _is_forecasting() -> bool:
    try:
        return jobs.job(root(), st.session_state.get("forecast", "")).state in jobs.ALIVE
    except UsageError:
        return False


def _forecast(argv: list[str]) -> None:
    """What the last forecast said."""
    name = st.session_state.get("forecast")
    if name is None:
        return
    with usage_errors():
        job = jobs.job(root(), name)
        if job.state in jobs.ALIVE:
            told = job.progress
            share, words = (told.share, told.stage) if told else (0.0, "Loading …")
            st.progress(share, markdown_text(f"Forecast: {words}"))
            st.button("Stop the forecast", on_click=jobs.stop, args=(root(), name))
            return
        if st.session_state.pop(FORECASTING, False):
            st.rerun()  # there is nothing to look at every two seconds any more
        if job.argv[:-1] != argv:
            st.caption("The forecast is of what the form said before: ask again.")
        if job.state != "finished":
            st.error(markdown_text(f"No forecast: {job.last_line or job.state}"))
            return
        lines = job.tail()
        first = next((at for at, line in enumerate(lines) if line.startswith("dry run")), 0)
        st.code("\n".join(lines[first:]), language=None)
