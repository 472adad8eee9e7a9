"""Prompts: fixed words with a version, around text from corpora that is fenced off from them."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby

from autointerp.llm import Request
from store.latents import Window

FENCE = re.compile(r"<(?=\s*/?\s*data\s*>)", re.IGNORECASE)
"""What inside a fenced text would look like the fence."""
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Prompt:
    """A system message and a template of the user's."""

    id: str
    version: int
    """Rises with every change of wording."""
    system: str
    template: str
    """With `{fields}`."""

    @property
    def tag(self) -> str:
        """`id/version/hash`: two wordings never have the same."""
        digest = hashlib.sha256(f"{self.system}\0{self.template}".encode()).hexdigest()
        return f"{self.id}/{self.version}/{digest[:8]}"

    def request(self, *, max_tokens: int, schema: str | None = None, **fields: str) -> Request:
        """The prompt with its fields filled in; text from a corpus comes through `quote`."""
        user = self.template.format(**fields)
        return Request.ask(self.system, user, max_tokens=max_tokens, schema=schema, prompt=self.tag)


def quote(text: str) -> str:
    """`text` between fences that cannot stand inside it, its control characters but line breaks escaped."""
    inside = CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", FENCE.sub("‹", text))
    return f"<data>\n{inside}\n</data>"


def marked(window: Window, indices: Collection[int]) -> str:
    """The window's text with « and » around the words of runs of the tokens at `indices`, the space before them left
    outside; such marks in the text itself are quotes."""
    own = set(indices)
    pieces = [token.replace("«", '"').replace("»", '"') for token in window.tokens]
    runs = groupby(range(len(pieces)), key=own.__contains__)
    texts = ((inside, "".join(pieces[i] for i in run)) for inside, run in runs)
    return "".join(_marked(text) if inside else text for inside, text in texts)


def _marked(text: str) -> str:
    words = text.lstrip() or text
    return f"{text[: len(text) - len(words)]}«{words}»"
