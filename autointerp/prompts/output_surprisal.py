"""What a model reads before a passage, to tell how much a description helps it to foresee the passage. It is read as
plain text, by base and chat models alike. Any change of wording is a new version."""

from autointerp.prompts import Prompt

GENERIC = "passages about all sorts of things, with nothing in common"
"""A description that says nothing, in the place of one that should say something."""

FORESEE = Prompt(
    id="surprisal",
    version=1,
    system="",
    template=(
        "Short passages were cut out of longer documents and sorted by what they share. Above each group stands what "
        "its passages share; they begin and end anywhere.\n\n"
        "Shared: prices and amounts of money\n"
        "Passage:\nsold at auction for $4,200, twice what the owner\n\n"
        "Shared: a question that is put to somebody\n"
        "Passage:\nwhen she came in. Have you seen my keys? he\n\n"
        "Shared: {description}\n"
        "Passage:\n"
    ),
)
