"""The dashboard's entry point: page settings and navigation. `monosem serve` runs it under Streamlit."""

import streamlit as st

from app.web.navigation import SCREENS, file_of
from app.web.sign_in import let_in
from app.web.state import usage_errors

# Streamlit's defaults leave a third of the first screen empty.
STYLE = """<style>
.stMainBlockContainer{padding-top:4.2rem;padding-bottom:3rem}
.stMainBlockContainer h1{font-size:1.9rem;padding:.2rem 0} .stMainBlockContainer h3{font-size:1.25rem;padding:.4rem 0 0}
.stMainBlockContainer [data-testid=stMetricValue]{font-size:1.5rem}
</style>"""

# An emoji, for Streamlit fetches a :material: page icon from Google.
st.set_page_config(page_title="monosem", page_icon="🔬", layout="wide")
st.html(STYLE)
let_in()
page = st.navigation(
    [
        st.Page(file_of(name), title=screen.title, icon=screen.icon, url_path=name, default=name == "home")
        for name, screen in SCREENS.items()
    ],
    position="top",
)
with usage_errors():
    page.run()
