"""Who looks: nobody is asked on one's own machine; with `monosem serve --login`, OpenID Connect through Streamlit.

Streamlit reads where to ask from `[auth]` in `.streamlit/secrets.toml`, and needs Authlib (`pip install
'monosem[login]'`).
"""

import os

import streamlit as st

from app.cards import markdown_text

LOGIN = "MONOSEM_LOGIN"
"""Environment variable: 1 where people have to sign in."""


def required() -> bool:
    """Whether people have to sign in."""
    return os.environ.get(LOGIN) == "1"


def let_in() -> None:
    """Go on for those who may look; others see where to sign in, and nothing else."""
    if not required():
        return
    if st.user.get("is_logged_in", False):
        with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
            st.caption(markdown_text(signed_in_as()))
            st.button("Sign out", on_click=st.logout, type="tertiary")
        return
    st.title("monosem")
    st.caption(markdown_text("Whoever serves this asks to know who you are."))
    st.button("Sign in", on_click=st.login, icon=":material/login:", type="primary")
    st.stop()


def signed_in_as() -> str:
    """The name that whoever signed in is known by; empty where nobody has to."""
    return str(st.user.get("email") or st.user.get("name") or "") if required() else ""
