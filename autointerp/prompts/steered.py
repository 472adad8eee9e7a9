"""Prompts that have steered texts rated. Any change of wording is a new version."""

from autointerp.prompts import Prompt
from autointerp.prompts.judging import DATA, SHAPE

RATING = SHAPE.format(answer="0, 1 or 2", example="1")

CONCEPT = Prompt(
    id="steered_concept",
    version=1,
    system=(
        "Numbered texts were written by a small language model, which may be clumsy, begin in the middle of a sentence "
        "and stop in one. Rate for each how much it has of the concept that is described: 0, nothing; 1, a trace, or "
        "only a word of it; 2, it is clearly about it or full of it. How well a text is written does not count.\n"
        f"{DATA}\n{RATING}"
    ),
    template="Concept:\n{concept}\n\nTexts:\n{items}",
)

FLUENCY = Prompt(
    id="steered_fluency",
    version=1,
    system=(
        "Numbered texts were written by a small language model. That they begin and end in the middle of a sentence "
        "does not count. Rate how each reads: 0, it is broken: word salad, symbols, or the same words over and over; "
        "1, it can be read and is odd or clumsy; 2, it reads like ordinary writing. What it is about does not count.\n"
        f"{DATA}\n{RATING}"
    ),
    template="Texts:\n{items}",
)
