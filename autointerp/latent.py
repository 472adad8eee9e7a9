"""The types that flow from evidence to score."""

from dataclasses import dataclass

from store.latents import Logit, Window


@dataclass(frozen=True)
class Evidence:
    """What an explainer may see of a latent."""

    latent: int
    windows: tuple[Window, ...]
    """Active contexts, all from documents of the explain side."""
    promoted: tuple[Logit, ...]
    suppressed: tuple[Logit, ...]


@dataclass(frozen=True)
class Trial:
    """What a scorer judges an explanation on: contexts from documents that no explainer saw."""

    latent: int
    active: tuple[Window, ...]
    """The latent fires in each of these."""
    silent: tuple[Window, ...]
    """It fires nowhere in any of these."""

    @property
    def doc_ids(self) -> frozenset[int]:
        """Documents the contexts are from."""
        return frozenset(window.doc_id for window in (*self.active, *self.silent))


@dataclass(frozen=True)
class Explanation:
    """Words for what a latent responds to."""

    latent: int
    explainer: str
    text: str
    input_text: str
    """The part of `text` that says what the latent fires on: what scorers of inputs read. What it promotes is a claim
    about outputs, and unrelated words in it would only blur the comparison with contexts."""
    method: str
    """Who wrote it, in words for the reader: `counts` is not a language model."""
    n_contexts: int | None
    """Shown to the explainer; None where that is not known."""
    doc_ids: frozenset[int] | None
    """Documents the explainer saw; None where that is not known: it was written elsewhere."""


@dataclass(frozen=True)
class Score:
    """How well an explanation predicts its latent, and how sure that is."""

    value: float | None
    """None when nothing could be judged."""
    interval: tuple[float, float] | None
    """95% bootstrap interval over contexts."""
    chance: float
    """What a scorer that knows nothing gets."""
    n_judged: int
    n_unparsed: int
