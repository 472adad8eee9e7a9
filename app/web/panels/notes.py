"""What people write about latents: who writes, labels, ratings and lists."""

import getpass

import streamlit as st

MOST_NAME = 100
"""Characters of a name."""


def author_box(place: str) -> str:
    """A box for the name under which notes are kept: the same name in every box of the session.

    Args:
        place: tells it from other boxes on the page.
    """
    key = f"author {place}"
    st.session_state[key] = author()
    st.text_input("Your name", key=key, max_chars=MOST_NAME, on_change=lambda: _called(st.session_state[key]))
    return author()


def author() -> str:
    """Under which name notes are kept."""
    return st.session_state.setdefault("author", _user())


def _called(name: str | None) -> None:
    st.session_state["author"] = (name or "").strip() or _user()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "nobody"  # a user without a name, as in a container
