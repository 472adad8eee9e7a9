"""What an edit does and costs at several strengths, measured by the worker and shown as `monosem steer sweep` does."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import streamlit as st

from app.cards import markdown_text
from app.generator import Job, Stopped
from app.interpretation.job import render
from app.interpretation.view import Section
from app.steering_settings import SteeringSettings, together
from app.sweeping.view import measured, page
from app.web.jobs import of_tab
from app.web.panels.steering import POLL_SECONDS, SILENT_SECONDS
from app.web.state import MAX_TEXT, MODEL_SPINNER, read_only, tell, usage_errors, worker
from app.workbench import Workbench
from autointerp.steer_config import SteerConfig
from autointerp.sweep import SweepConfig
from sae.edits import WHEN
from store.errors import UsageError
from store.run import Run, list_runs
from store.swept import Swept

SWEEP = "sweep"
"""Of the URL: the id of a finished one."""
STRENGTHS = "0.25, 0.5, 1, 2"
SHOWN = ("effect", "cost", "texts", "moved")
"""Sections of the page that stand here; the file has them all."""
MEASURES = {
    "tier": st.column_config.TextColumn("Where"),
    "strength": st.column_config.NumberColumn("Strength", format="%g"),
    "mass": st.column_config.NumberColumn(
        "Concept", format="%.4f", help="Probability that the next token begins a word of the concept."
    ),
    "kl": st.column_config.NumberColumn("KL to base", format="%.4f", help="Of the token after a prompt, nats."),
    "kl_retain": st.column_config.NumberColumn("KL on retained", format="%.4f"),
    "perplexity": st.column_config.NumberColumn(
        "Perplexity under base", format="%.1f", help="Of what was written; beside it, over that of the clean texts."
    ),
    "perplexity_ratio": st.column_config.NumberColumn("… over clean", format="%.2f"),
    "repetition": st.column_config.NumberColumn("Repetition", format="%.3f"),
    "share_of_norm": st.column_config.NumberColumn("Share of |x|", format="%.3f"),
    "n": st.column_config.NumberColumn("Prompts", format="%d"),
}


@dataclass
class Sweeping:
    """The sweep that was asked for in this session."""

    job: Job[str]
    index: str


def sweep_panel(bench: Workbench, settings: SteeringSettings) -> None:
    """Ask for a sweep, watch it, read what came of it or of an earlier one."""
    st.subheader(
        "Sweep of strengths",
        help="The edit above at several strengths, beside as many random latents that fire as often and random "
        "directions of the same size. An effect that is not outside of theirs is none of these latents in particular.",
    )
    swept = _finished(bench)
    if read_only():
        st.caption("Read-only: sweeps that were made can be read, none can be started.")
    else:
        with st.expander("Measure a new one", expanded=SWEEP not in st.query_params and _sweeping(bench) is None):
            _form(bench, settings)
    sweeping = _sweeping(bench)
    if sweeping is not None:
        _watched(bench, sweeping)
    _read(swept)


def _sweeping(bench: Workbench) -> Sweeping | None:
    found: Sweeping | None = st.session_state.get("sweeping")
    return found if found is not None and found.index == bench.run.id else None


def _finished(bench: Workbench) -> dict[str, Run]:
    """Sweeps of this index by id, the newest first."""
    runs = [run for run in list_runs(bench.run.root, "steering") if run.inputs.get("index") == bench.run.id]
    return {run.id: run for run in reversed(runs)}


def _form(bench: Workbench, settings: SteeringSettings) -> None:
    edits = together([edit for edit in settings.edits if isinstance(edit, SteerConfig)])
    if not edits:
        st.caption("A sweep is of latents: name one above.")
        return
    with st.form("sweep", border=False):
        edit = st.selectbox(
            "Edit",
            edits,
            format_func=_edit_told,
            help="Rows that differ in latent and strength alone are one edit; their strengths are those below.",
        )
        left, right = st.columns(2, gap="large")
        with left:
            words = _lines("Words of the concept", "words", 68)
            prompts = _lines("Prompts, one a line", "sweep_prompts", 120)
        with right:
            retain = _lines("Texts to be left alone, one a line", "retain", 120)
            strengths = st.text_input("Strengths", STRENGTHS, key="strengths", bind="query-params")
            tiers = st.multiselect("Where", WHEN, default=["always"], key="tiers", bind="query-params")
        numbers = _numbers()
        asked = st.form_submit_button("Measure", icon=":material/monitoring:")
    if edit is None or not (asked or (words and prompts and retain)):
        st.caption("The command line that does the same stands here once there is something to measure.")
        return
    with usage_errors():
        cfg = config(edit, strengths, tiers, words=words, prompts=prompts, retain=retain, **numbers)
        st.caption("The same on the command line:")
        st.code(command(cfg, bench.run.root.resolve(), bench.run.id), language="bash", wrap_lines=True)
        if asked:
            before = _sweeping(bench)
            if before is not None:
                before.job.cancel()
            st.session_state["sweeping"] = Sweeping(of_tab(worker().sweep(cfg)), bench.run.id)


def _edit_told(edit: SteerConfig) -> str:
    return f"{edit.op} {', '.join(map(str, edit.latents))}"


def _lines(label: str, key: str, height: int) -> tuple[str, ...]:
    typed = st.text_area(label, height=height, max_chars=MAX_TEXT, key=key, bind="query-params") or ""
    return tuple(line.strip() for line in typed.splitlines() if line.strip())


def _numbers() -> dict[str, int | float]:
    boxes = (
        ("Draws of controls", "n_draws", 0, 20, 3, "Of random latents and of random directions. 0: no suggestion."),
        ("Continuations", "n_seeds", 0, 8, 1, "Of each prompt; 0 measures what is said next alone, much faster."),
        ("Tokens", "n_tokens", 1, 200, 16, "Of a continuation."),
        ("Seed", "sweep_seed", 0, 2**31 - 1, 0, "Of controls and continuations."),
    )
    found = {
        name: column.number_input(label, low, high, default, key=f"sw_{name}", bind="query-params", help=about)
        for column, (label, name, low, high, default, about) in zip(st.columns(len(boxes)), boxes, strict=True)
    }
    return {"seed": found.pop("sweep_seed"), **found}


def config(
    edit: SteerConfig, strengths: str, tiers: Sequence[str], *, words: tuple[str, ...], **settings: object
) -> SweepConfig:
    """What is measured, from what was typed.

    Raises:
        UsageError: there is nothing to measure, or a strength is no number.
    """
    try:
        tried = tuple(float(each) for each in strengths.replace(",", " ").split())
    except ValueError as error:
        raise UsageError(f"strengths {strengths[:60]}: {error}: give numbers, such as {STRENGTHS}") from error
    # Words stand in one line or in several.
    every = tuple(word for line in words for word in line.replace(",", " ").split())
    plain = replace(edit, strength=(1.0,), when="always", condition=(), above=(0.0,))
    try:
        return SweepConfig(
            edit=edit if edit.condition else plain,
            strengths=tried,
            tiers=tuple(tiers),
            words=every,
            **settings,  # pyright: ignore[reportArgumentType]
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def command(cfg: SweepConfig, root: Path, index: str) -> str:
    """`monosem steer sweep` with the same settings."""
    words = ["monosem", "steer", "sweep", "--latents", *map(str, cfg.edit.latents), "--op", cfg.edit.op]
    words += ["--decode", cfg.edit.decode]
    if cfg.edit.condition:
        words += ["--condition", *map(str, cfg.edit.condition), "--above", *map(str, cfg.edit.above)]
    for name in ("strengths", "tiers", "words", "prompts", "retain"):
        words += [f"--{name}", *map(str, getattr(cfg, name))]
    for name in ("n_draws", "n_seeds", "n_tokens", "seed"):
        words += [f"--{name.replace('_', '-')}", str(getattr(cfg, name))]
    return shlex.join([*words, "--root", str(root), "--index-run", index])


def _watched(bench: Workbench, sweeping: Sweeping) -> None:
    """The sweep that is under way; when it is finished, the URL names it."""
    tell(sweeping.job)
    if not sweeping.job.done:
        _under_way(sweeping.job)
        return
    try:
        st.query_params[SWEEP] = sweeping.job.result()
        del st.session_state["sweeping"]
        st.rerun()
    except Stopped as error:
        st.info(f"{markdown_text(str(error))}\n\nWhat was measured is kept: asked again, it goes on from there.")
    except UsageError as error:
        st.error(markdown_text(str(error)))


@st.fragment(run_every=POLL_SECONDS * 2)
def _under_way(job: Job[str]) -> None:
    if job.done:
        st.rerun()
    done, of = job.progress
    waiting = MODEL_SPINNER if job.started else "Waiting for its turn: the model does one thing at a time …"
    said = f"{done} of {of} cells: arms, strengths and places" if of else waiting
    if of and job.silent_seconds > SILENT_SECONDS * 4:
        said += f" · nothing was heard of the model for {job.silent_seconds:.0f} s"
    st.progress(done / of if of else 0.0, said)
    st.button("Stop", on_click=job.cancel, icon=":material/stop:", key="sweep_stop")


def _read(swept: dict[str, Run]) -> None:
    """One finished sweep."""
    asked = st.query_params.get(SWEEP)
    if asked and asked not in swept:
        st.warning(markdown_text(f"There is no finished sweep {asked[:40]} of this index: choose one below."))
    if not swept:
        st.caption("No strength was swept yet on this index.")
        return
    # Not bound to the URL, where it would stand as it is shown: the id does.
    chosen = st.selectbox(
        "Finished sweep",
        list(swept),
        index=list(swept).index(asked) if asked in swept else None,
        key=f"sweep {asked}",
        format_func=lambda id: _run_told(swept[id]),
        placeholder="choose one to read",
    )
    if chosen is not None:
        st.query_params[SWEEP] = chosen
        with usage_errors():
            _shown(swept[chosen])


def _run_told(run: Run) -> str:
    edit = run.config["edit"]
    return f"{edit['op']} {', '.join(map(str, edit['latents']))}: {', '.join(run.config['words'])} ({run.id[:8]})"


def _shown(run: Run) -> None:
    """Tables, plots and remarks, and the file with all of them."""
    whole = page(run)
    st.dataframe(
        measured(Swept(run.folder)),
        hide_index=True,
        column_order=list(MEASURES),
        column_config=MEASURES,
        placeholder="–",
    )
    for section in whole.sections:
        if section.id in SHOWN:
            _section(section)
    st.download_button(
        "The page that `monosem steer sweep` writes",
        lambda: render(whole),
        f"steering-{run.id}.html",
        "text/html",
        icon=":material/download:",
        on_click="ignore",
    )


def _section(section: Section) -> None:
    with st.expander(section.title, expanded=section.id == "effect"):
        st.caption(markdown_text(section.about))
        if section.remarks:
            st.markdown("\n".join(f"- {markdown_text(line)}" for line in section.remarks))
        for number, figure in enumerate(section.plots):
            st.plotly_chart(figure, key=f"{section.id} {number}", alt=section.title, config={"displayModeBar": False})
        for table in section.tables:
            # Columns of one name are of different arms, and a data frame needs names of its own for them.
            names = [
                f"{name}{chr(0x200B) * list(table.columns[:i]).count(name)}" for i, name in enumerate(table.columns)
            ]
            st.dataframe(pd.DataFrame(table.rows, columns=names), hide_index=True)
