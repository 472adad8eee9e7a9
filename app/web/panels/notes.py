"""What people write about latents: who writes, labels, ratings and lists."""

from collections.abc import Sequence

import streamlit as st

from app.cards import escape, markdown_text, wrapped
from app.person import user_name
from app.web.finding import notes
from app.web.sign_in import signed_in_as
from app.web.state import read_only, usage_errors
from app.workbench import Workbench
from store.notes import Notes

NAME = "author"
"""In the session: the name that was typed."""
MOST_NAME = 100
"""Characters of a name."""


def author_box(place: str) -> str:
    """A box for the name under which notes are kept: the same name in every box of the session.

    Args:
        place: tells it from other boxes on the page.
    """
    if name := signed_in_as():
        st.caption(markdown_text(f"Kept under the name you signed in by, {name}."))
        return name
    key = f"author {place}"
    st.session_state[key] = author()
    st.text_input("Your name", key=key, max_chars=MOST_NAME, on_change=lambda: called(st.session_state[key]))
    return author()


def author() -> str:
    """Under which name notes are kept."""
    return named() or user_name()


def named() -> str:
    """The name that was signed in by, or typed in any box of the session; empty where none was."""
    return signed_in_as() or st.session_state.get(NAME, "")


def called(name: str | None) -> None:
    """Keep what is written from now on under this name; an empty one takes the name back."""
    st.session_state[NAME] = (name or "").strip()


@st.fragment
def notes_panel(bench: Workbench, latent: int) -> None:
    """What people call a latent, how they rate it, the lists it is on, and boxes to say so oneself."""
    kept, sae = notes(bench), bench.dictionary
    st.subheader("Notes", help="Kept beside the runs, by dictionary: every index of it shows them, nothing is lost.")
    _written(kept, sae, latent)
    if read_only():
        return
    with st.expander("Write", icon=":material/edit_note:", key="notes", on_change="rerun") as box:
        if box.open:
            _label(kept, sae, latent)
            _rating(kept, sae, latent)
            _lists(kept, sae, latent)


def _written(kept: Notes, sae: str, latent: int) -> None:
    labels, ratings = kept.labels(sae, latent), kept.ratings(sae, latent)
    on = [name for name, latents in kept.lists(sae).items() if latent in latents]
    said = [
        f"<div><b>{escape(each.text)}</b> <span class='ms-small'>{escape(each.author)}</span></div>" for each in labels
    ]
    if ratings:
        mean = sum(each.value for each in ratings) / len(ratings)
        who = ", ".join(f"{each.author} {each.value}" for each in ratings)
        said.append(f"<div class='ms-small'>rated {mean:.1f} of 5 (n = {len(ratings)}): {escape(who)}</div>")
    if on:
        said.append(f"<div class='ms-small'>on {escape(', '.join(on))}</div>")
    st.html(wrapped("".join(said) or "<div class='ms-small'>Nobody has written anything yet.</div>"))


def _label(kept: Notes, sae: str, latent: int) -> None:
    who = author_box("feature")
    own = next((each.text for each in kept.labels(sae, latent) if each.author == who), "")
    with st.form(f"label {latent}", border=False):
        box, button = st.columns([3, 1], vertical_alignment="bottom")
        text = box.text_input("Label", own, key=f"label of {latent}", placeholder="what it is")
        if button.form_submit_button("Save", width="stretch", help="An empty label takes yours back."):
            with usage_errors():
                kept.label(sae, latent, text.strip(), who)
                st.rerun()


def _rating(kept: Notes, sae: str, latent: int) -> None:
    who = author()
    own = next((each.value for each in kept.ratings(sae, latent) if each.author == who), None)
    st.caption("How interpretable is it?")
    stars = st.feedback("stars", key=f"rating of {latent} by {who}", default=None if own is None else own - 1)
    if stars is not None and stars + 1 != own:
        with usage_errors():
            kept.rate(sae, latent, stars + 1, who)
            st.rerun(scope="fragment")


def _lists(kept: Notes, sae: str, latent: int) -> None:
    known = kept.lists(sae)
    on = [name for name, latents in known.items() if latent in latents]
    chosen: Sequence[str] = st.multiselect(
        "Lists",
        list(known),
        on,
        key=f"lists of {latent} {on}",
        accept_new_options=True,
        placeholder="choose one, or type a new one",
    )
    if set(chosen) != set(on):
        with usage_errors():
            for name in set(chosen) - set(on):
                kept.add_to_list(sae, name, [latent], author())
            for name in set(on) - set(chosen):
                kept.remove_from_list(sae, name, [latent], author())
            st.rerun(scope="fragment")
