"""Prompts that ask what a latent does to the next token, alone or beside what it responds to. Gur-Arieh et al. 2025,
arXiv:2501.08319, found the two kinds of evidence to complete one another. Any change of wording is a new version."""

from autointerp.prompts import Prompt
from autointerp.prompts.explain_contexts import ANSWER, DATA, LINES, REPLY

LISTS = (
    "Raised and lowered: the tokens that its direction by itself makes likelier and less likely next, most affected "
    "first. Raised and lowered in text: those that change most when it is kept strongly active throughout real text."
)
SHARED = (
    "Find what most of the raised tokens share: a word and its forms, a meaning, a topic, a language, a form. Lowered "
    "tokens often show only what they are not. Some tokens are noise or pieces of words: complete the pieces, leave "
    "out the noise."
)

OUTPUT = Prompt(
    id="explain_output",
    version=1,
    system=(
        "You study one unit inside a language model by the tokens that it makes the model say.\n"
        f"{LISTS}\n{SHARED} Say what the unit makes the model write, not the lists.\n{DATA}\n{REPLY}"
    ),
    template="{tokens}",
)

ENSEMBLE = Prompt(
    id="explain_ensemble",
    version=1,
    system=(
        "You study one unit inside a language model: what it responds to, and what it makes the model say.\n"
        f"{LINES}\n{ANSWER}\n{LISTS}\n{SHARED}\n"
        "The two may differ. Use the tokens to choose between readings of the lines, and the lines to choose between "
        f"readings of the tokens, but say of each only what its own evidence bears out.\n{DATA}\n"
        "Say what it responds to (input, at most 25 words) and what it makes the model say (output, at most 15). "
        'Reply with JSON alone: {"input": "…", "output": "…"}'
    ),
    template="Active:\n{contexts}\n{tokens}",
)
