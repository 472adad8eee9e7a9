"""One latent of a text in the Prompt lab: what it does to the next token, and ways on from here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from app.cards import markdown_text, number, visible
from app.cards_prompt import effects_html
from app.figures_prompt import token_bars
from app.generator.plain_prompt import effects
from app.inspection import Inspection
from app.web.navigation import SCREENS, link
from app.web.state import worker
from app.web.waiting import answered, asked, forget, outcome
from app.workbench import Workbench

HERE, EVERYWHERE = "this token", "every token"


def latent_panel(
    bench: Workbench, inspection: Inspection, latent: int, pos: int | None, text: str, *, chat: bool
) -> None:
    """What is known of the latent, links, and its effect on the token after `pos`, or after its peak."""
    page, values = bench.page(latent), inspection.values(latent)
    said = page.explanations[0]["text"] if page.explanations else "not explained"
    promoted = ", ".join(visible(logit.token) for logit in page.promoted[:6]) or "–"
    peak = int(values.argmax())
    where = (
        f"its highest here is {number(values[peak])}, on token {peak}" if values[peak] > 0 else "silent on this text"
    )
    st.markdown(markdown_text(f"Latent {latent}: {said} · promotes {promoted} · {where}."))
    ways_on([latent], text)
    at = _place(inspection, values, peak, pos)
    if at is None:
        st.caption("Its effect is that of a token on which it fires: choose a token, or a latent that fires.")
        return
    _effect(bench, inspection, latent, at, text, chat=chat)


def ways_on(latents: Sequence[int], prompt: str) -> None:
    """Links to the feature and to steering, where there is such a page."""
    with st.container(horizontal=True):
        if len(latents) == 1:
            link("feature", "Open the feature", ":material/search_insights:", latent=str(latents[0]))
        if "steering" in SCREENS:
            query = {"latents": ",".join(map(str, latents))} | ({"prompt": prompt} if prompt else {})
            link("steering", "Steer from here", ":material/tune:", **query)


def _place(inspection: Inspection, values: np.ndarray, peak: int, pos: int | None) -> int | None:
    """The token after which the next one is looked at."""
    if pos is not None:
        return pos
    return peak if values[peak] > 0 else None


def _effect(bench: Workbench, inspection: Inspection, latent: int, at: int, text: str, *, chat: bool) -> None:
    """What taking it away does, asked for by a button: it runs the model twice."""
    token = visible(inspection.tokens[at])
    st.markdown(f"**Effect on the token after token {at}, {markdown_text(token)}**")
    wanted, clicked = _form(visible(inspection.tokens[at + 1]) if at + 1 < len(inspection.tokens) else "the likeliest")
    question = (bench.run.id, text, chat, latent, at, *wanted.values())
    if clicked:
        forget("effects")
        settings = {"text": text, "latent": latent, "pos": at, "chat": chat, **wanted}
        asked("effects", question, lambda: worker().ask("effects", effects, **settings))
    job = answered("effects", question)
    found = outcome("effects", job) if job is not None else None
    if found is not None:
        st.html(effects_html(found))
        st.caption("In full, on every token's own loss: above 0, taking the latent away makes the token less likely.")
        st.plotly_chart(
            token_bars(inspection.tokens, found.loss_change, "change of loss, nats", chosen=at),
            key="loss change",
            alt="Change of each token's loss, a bar for each",
            config={"displayModeBar": False},
        )


def _form(comes: str) -> tuple[dict[str, Any], bool]:
    """How it is measured, and whether to; `comes` is the next token unless another is typed."""
    with st.form("effects", border=False):
        where, following, button = st.columns([3, 2, 2], vertical_alignment="bottom")
        over = where.segmented_control(
            "In full, take it away on",
            [HERE, EVERYWHERE],
            default=HERE,
            key="where",
            bind="query-params",
            help="The direct effect is always that of this token alone. First tokens and attention sinks are left "
            "alone: an edit there breaks the model for another reason.",
        )
        target = following.text_input(
            "Next token",
            key="next",
            bind="query-params",
            placeholder=comes,
            help="Whose loss is told; by default the one that comes. Most words are one with the space before them.",
        )
        clicked = button.form_submit_button("Measure", icon=":material/straighten:", width="stretch")
    return {"everywhere": over == EVERYWHERE, "target": target or None}, clicked
