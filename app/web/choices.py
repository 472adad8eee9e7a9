"""Choices of runs that stand in the URL by their ids, while people read their titles.

Streamlit's own binding puts the title into the URL, and drops what it does not know without a word.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from app.cards import markdown_text

NONE = ""
"""In the URL: none is chosen."""


def choose_one(
    box: Any, key: str, label: str, options: Mapping[str, str], default: str, forgets: Sequence[str] = ()
) -> str:
    """The id that the URL's `key` names; a select box changes both.

    Args:
        box: where the select box stands, and a line above it if the URL names nothing that there is.
        key: of the URL.
        label: of the box.
        options: titles by id; at least one.
        default: the id where the URL names none.
        forgets: names in the URL that mean nothing with another choice.
    """
    chosen = (_asked(box, key, options, [default]) or [default])[0]
    state = _shown(key, chosen)
    box.selectbox(
        label,
        list(options),
        format_func=lambda one: options.get(one, one),
        key=state,
        on_change=_keep,
        args=(key, forgets),
    )
    return chosen


def choose_some(box: Any, key: str, label: str, options: Mapping[str, str], default: Sequence[str]) -> list[str]:
    """The ids that the URL's `key` names, in that order; a box for several changes both. Otherwise as `choose_one`."""
    chosen = _asked(box, key, options, default)
    state = _shown(key, chosen)
    box.multiselect(
        label, list(options), format_func=lambda one: options.get(one, one), key=state, on_change=_keep, args=(key,)
    )
    return chosen


def _shown(key: str, chosen: Any) -> str:
    """The box's own key, its value being what the URL says."""
    state = f"{key} chosen"
    st.session_state[state] = chosen
    return state


def _keep(key: str, forgets: Sequence[str] = ()) -> None:
    """Put what the box says into the URL; a box that was emptied stays empty."""
    for name in forgets:
        st.query_params.pop(name, None)
    st.query_params[key] = st.session_state[f"{key} chosen"] or NONE


def _asked(box: Any, key: str, options: Mapping[str, str], default: Sequence[str]) -> list[str]:
    asked = st.query_params.get_all(key)
    if not asked or asked == [NONE]:
        return [] if asked else list(default)
    found = {name: [one for one in options if name and one.startswith(name)] for name in dict.fromkeys(asked)}
    for name in (name for name, ids in found.items() if len(ids) != 1):
        why = f"names {len(found[name])} runs: give more of its id" if found[name] else "is none of these"
        box.warning(f"`{key}={markdown_text(name)}` in the address {why}.")
    return [ids[0] for ids in found.values() if len(ids) == 1] or list(default)
