"""The edits of the steering lab: a row for each latent, and one for a vector of one's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Any

import streamlit as st

from app.cards import escape, markdown_text, number, wrapped
from app.cards_steering import equation_html
from app.web.navigation import link
from app.web.state import usage_errors
from app.whole_numbers import whole
from app.workbench import Workbench
from autointerp.steer_config import IN_UNITS, SteerConfig, SteerEdit, SteerVector
from autointerp.steer_vector import read_vector
from sae.edits import DECODE, OPERATIONS, WHEN
from store.errors import UsageError

MAX_LATENTS = 16
VECTOR = "vector"
OWN_VECTOR = "own vector"
"""In the session: name and numbers of the uploaded one. A URL is no place for it."""
UPLOADER = "vector uploader"
"""In the session: number of the box for a file. Another number is another box, without a file."""
KNOWN = """SELECT latents.latent, latents.q999, features.explanation
FROM latents JOIN features USING (latent) WHERE list_contains(?, latents.latent)"""
CHOICES: dict[str, tuple[str, ...]] = {"op": tuple(OPERATIONS), "when": WHEN, "decode": DECODE}
"""Settings of a row that are one of a few, the first by default."""
VECTOR_STRENGTH = 0.1
# A box that stands in the URL stands there as it is shown: what a name means is in its help.
OPERATIONS_HELP = "\n".join(f"- {name}: {operation.about}" for name, operation in OPERATIONS.items())
WHERE_HELP = (
    "always: every position. input: from the first token on at which the condition is met. token: only where it is "
    "met. The first token, attention sinks and padding are left alone whatever is chosen."
)


@dataclass(frozen=True)
class Known:
    """What the index and the dictionary know of a latent."""

    q999: float
    """0 where it never fired."""
    norm: float
    """Of its decoder row."""
    explanation: str


def numbers_of(text: str, what: str, last: int) -> tuple[int, ...]:
    """Latents as they are typed, or stand in a URL: `12, 35`.

    Raises:
        UsageError: one is no latent, is named twice, or there are too many.
    """
    parts = text.replace(",", " ").split()
    for part in parts:
        if whole(part, last) is None:
            raise UsageError(f"{what} {part[:40]} is none: choose 0 to {last}, such as 12, 35")
    found = tuple(map(int, parts))
    if len(set(found)) < len(found):
        raise UsageError(f"{what} {', '.join(map(str, found))[:80]} names one twice: give each once")
    if len(found) > MAX_LATENTS:
        raise UsageError(f"{len(found)} latents are more than this page shows: choose at most {MAX_LATENTS}")
    return found


def refuse_url(query: Mapping[str, str], latents: Sequence[int]) -> None:
    """Say what of a URL cannot be meant; the boxes have their defaults there.

    Raises:
        UsageError: a setting that there is none of, or one that is no number.
    """
    for who in (*latents, VECTOR):
        for name, known in CHOICES.items():
            asked = query.get(f"{name}{who}")
            if asked is not None and asked not in known:
                raise UsageError(f"{name}{who}={asked[:40]} is not known: choose one of {', '.join(known)}")
        refuse_number(query, f"strength{who}")
        refuse_number(query, f"above{who}", 0.0)


def refuse_number(query: Mapping[str, str], name: str, low: float = -inf, high: float = inf) -> None:
    """Say that a setting of a URL is no number, or out of range.

    Raises:
        UsageError: it is none, or is not from `low` to `high`.
    """
    asked = query.get(name)
    if asked is None:
        return
    try:
        value = float(asked)
    except ValueError:
        value = nan
    if not isfinite(value):
        raise UsageError(f"{name}={asked[:40]} is no number: give one, such as 1.5")
    if not low <= value <= high:
        ends = f"{low:g} or more" if high == inf else f"{low:g} to {high:g}"
        raise UsageError(f"{name}={asked[:40]} is out of range: choose {ends}")


def known_of(bench: Workbench, latents: Sequence[int]) -> dict[int, Known]:
    """What is known of latents, by number."""
    from sae import checkpoint

    rows = bench.index.sql(KNOWN, [list(latents)])
    norms = dict(zip(latents, checkpoint.decoder_norms(bench.sae_run.folder, latents), strict=True))
    return {
        int(row["latent"]): Known(
            row["q999"] if row["q999"] > 0 else 0.0,
            norms[int(row["latent"])],
            row["explanation"] if isinstance(row["explanation"], str) else "",
        )
        for row in rows.to_dict("records")
    }


def edits_panel(bench: Workbench, latents: Sequence[int]) -> tuple[SteerEdit, ...]:
    """A row for each edit; those that can be read.

    Raises:
        UsageError: a condition that is none.
    """
    known = known_of(bench, latents) if latents else {}
    edits: list[SteerEdit] = [_latent_row(bench, latent, known[latent]) for latent in latents]
    vector = _vector_box(bench)
    if vector is not None:
        edits.append(_vector_row(bench, *vector))
    return tuple(edits)


def _latent_row(bench: Workbench, latent: int, known: Known) -> SteerConfig:
    with st.container(border=True):
        said = f" · {known.explanation}" if known.explanation else ""
        link("feature", markdown_text(f"Latent {latent}{said}"), ":material/search_insights:", latent=str(latent))
        op_box, strength_box, when_box, decode_box = st.columns(4)
        op = op_box.selectbox("Operation", CHOICES["op"], key=f"op{latent}", bind="query-params", help=OPERATIONS_HELP)
        takes = OPERATIONS[op].takes_value
        strength = strength_box.number_input(
            "Factor" if op == "scale" else "Strength, × q99.9",
            value=1.0,
            step=0.25,
            format="%.6g",
            key=f"strength{latent}",
            bind="query-params",
            disabled=not takes,
            help=f"{op} takes no strength." if not takes else None,
        )
        decode = decode_box.selectbox(
            "Error term",
            CHOICES["decode"],
            key=f"decode{latent}",
            bind="query-params",
            help="What the dictionary does not explain of x. delta keeps it; full loses it, with the reconstruction in "
            "place of x.",
        )
        when, condition, above = _place(bench, latent, when_box)
        edit = SteerConfig(
            latents=(latent,),
            op=op,
            strength=(float(strength or 0.0),) if takes else (1.0,),
            when=when,
            condition=condition,
            above=(above,),
            decode=decode,
        )
        st.html(wrapped(equation_html(edit, _values(edit, known)) + _unit_html(bench, edit, known)))
    return edit


def _place(bench: Workbench, who: int | str, when_box: Any) -> tuple[str, tuple[int, ...], float]:
    """Where an edit is made: tier, condition, threshold."""
    when = when_box.selectbox("Where", CHOICES["when"], key=f"when{who}", bind="query-params", help=WHERE_HELP)
    if when == "always":
        return when, (), 0.0
    of, height = st.columns([2, 1])
    typed = of.text_input(
        "Condition: one of these latents fires",
        key=f"condition{who}",
        bind="query-params",
        placeholder="the latent itself" if who != VECTOR else "such as 12, 35",
    )
    above = height.number_input(
        "above, × q99.9", 0.0, value=0.0, step=0.1, format="%.6g", key=f"above{who}", bind="query-params"
    )
    return when, numbers_of(typed, "condition: latent", bench.d_sae - 1), float(above or 0.0)


def _values(edit: SteerConfig, known: Known) -> list[float | None]:
    strength = edit.strength[0]
    if edit.op == "scale":
        return [strength]
    return [strength * known.q999 if known.q999 else None]


def _unit_html(bench: Workbench, edit: SteerConfig, known: Known) -> str:
    """The unit, and what a strength in it is beside the activations' length."""
    if not known.q999:
        way = " This operation needs none." if edit.op not in IN_UNITS else " Choose scale, ablate or project_out."
        return f'<div class="ms-small">It never fired on the harvested text: there is no unit of strength.{way}</div>'
    unit = f"q99.9 = {number(known.q999)}"
    if edit.op not in IN_UNITS:
        return f'<div class="ms-small">{unit}</div>'
    length = abs(edit.strength[0]) * known.q999 * known.norm
    share = ""
    if bench.mean_norm:
        least = " where it was silent" if edit.op == "clamp" else ""
        share = (
            f" · moves x by {number(length)}{least}: {length / bench.mean_norm:.1%} of the mean length of activations, "
            f"{number(bench.mean_norm)}"
        )
    return f'<div class="ms-small">{unit}{share}</div>'


def _vector_box(bench: Workbench) -> tuple[str, tuple[float, ...]] | None:
    """The uploaded vector, if there is one that can be used."""
    d_in = int(bench.sae_run.config["sae"]["d_in"])
    with st.expander("A vector of your own", expanded=OWN_VECTOR in st.session_state):
        given = st.file_uploader(
            f"A safetensors file with one vector of {d_in} numbers; it is added, and only its direction counts",
            type="safetensors",
            max_upload_size=1,
            key=f"vector file {st.session_state.get(UPLOADER, 0)}",
        )
        if given is not None:
            st.session_state.pop(OWN_VECTOR, None)
            with usage_errors():
                st.session_state[OWN_VECTOR] = given.name[:100], read_vector(given.getvalue(), d_in)
        own = st.session_state.get(OWN_VECTOR)
        if own is not None and len(own[1]) != d_in:
            del st.session_state[OWN_VECTOR]
            own = None
        if own is not None and given is None:
            st.button("Leave it out", on_click=st.session_state.pop, args=(OWN_VECTOR, None), icon=":material/close:")
        if own is None and f"strength{VECTOR}" in st.query_params:
            st.info("This URL was of a page with a vector. The vector is not in it: upload the file again.")
        return own


def forget_vector() -> None:
    """Leave the uploaded vector out, and its file: else that would be read again."""
    st.session_state.pop(OWN_VECTOR, None)
    st.session_state[UPLOADER] = st.session_state.get(UPLOADER, 0) + 1


def _vector_row(bench: Workbench, name: str, vector: tuple[float, ...]) -> SteerVector:
    with st.container(border=True):
        st.html(wrapped(f"<b>{escape(name)}</b>"))
        strength_box, when_box = st.columns(2)
        strength = strength_box.number_input(
            "Strength, × mean length of activations",
            value=VECTOR_STRENGTH,
            step=0.05,
            format="%.6g",
            key=f"strength{VECTOR}",
            bind="query-params",
        )
        when, condition, above = _place(bench, VECTOR, when_box)
        edit = SteerVector(
            vector=vector, strength=float(strength or 0.0), name=name, when=when, condition=condition, above=(above,)
        )
        length = None if bench.mean_norm is None else edit.strength * bench.mean_norm
        unit = f"mean length of activations {number(bench.mean_norm)}; u is the vector at length 1"
        st.html(wrapped(f'{equation_html(edit, [length])}<div class="ms-small">{unit}</div>'))
    return edit


def state_of(edits: Sequence[SteerEdit]) -> dict[str, Any]:
    """What the boxes of these edits hold, by their keys: it restores them."""
    state: dict[str, Any] = {
        "latents": ", ".join(str(i) for edit in edits if isinstance(edit, SteerConfig) for i in edit.latents)
    }
    for edit in edits:
        if isinstance(edit, SteerVector):
            state |= {OWN_VECTOR: (edit.name, edit.vector), f"strength{VECTOR}": edit.strength, **_placed(edit, VECTOR)}
            continue
        strengths = edit.strength * len(edit.latents) if len(edit.strength) == 1 else edit.strength
        for latent, strength in zip(edit.latents, strengths, strict=True):
            own = {"op": edit.op, "strength": strength, "decode": edit.decode}
            state |= {f"{name}{latent}": value for name, value in own.items()} | _placed(edit, latent)
    return state


def _placed(edit: SteerEdit, who: int | str) -> dict[str, Any]:
    if edit.when == "always":
        return {f"when{who}": edit.when}
    return {
        f"when{who}": edit.when,
        f"condition{who}": ", ".join(map(str, edit.condition)),
        f"above{who}": edit.above[0],
    }
