"""Prompt lab: what fires on a text of one's own, what the SAE misses in it, and what tells two texts apart."""

import streamlit as st

from app.web.panels.prompt_contrast import contrast_panel
from app.web.panels.prompt_text import text_panel
from app.web.state import workbench

MODES = {"one text": text_panel, "two sides": contrast_panel}

bench = workbench()
st.title("Prompt lab")
mode = st.segmented_control(
    "Look at",
    list(MODES),
    default="one text",
    key="mode",
    bind="query-params",
    help="One text, token by token; or what tells two texts, or two sets of texts, apart.",
)
MODES[mode or "one text"](bench)
