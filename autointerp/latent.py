"""The types that flow from evidence to score."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from store.latents import Logit, Window

ACTIVE = "active"
"""Kind of an item in which the latent fires; every other kind says how a silent one was found."""


@dataclass(frozen=True)
class Neighbour:
    """A latent whose decoder row is near, and contexts in which it fires and the one in question is silent."""

    latent: int
    cosine: float
    """Of the two decoder rows."""
    windows: tuple[Window, ...]
    """`values` are the neighbour's."""


@dataclass(frozen=True)
class Evidence:
    """What an explainer may see of a latent; all contexts are from documents of the explain side."""

    latent: int
    windows: tuple[Window, ...]
    """Active contexts, one from each of equal-count strata of the ordered peaks, strongest first."""
    promoted: tuple[Logit, ...]
    suppressed: tuple[Logit, ...]
    top: tuple[Window, ...] = ()
    """The contexts of the highest peaks, strongest first."""
    silent: tuple[Window, ...] = ()
    """Contexts in which it is silent, peak on a token on which it fires elsewhere where there are such."""
    neighbours: tuple[Neighbour, ...] = ()
    """The nearest latents, nearest first."""

    @property
    def shown(self) -> tuple[Window, ...]:
        """Every context in it."""
        others = (window for neighbour in self.neighbours for window in neighbour.windows)
        return (*self.windows, *self.top, *self.silent, *others)


@dataclass(frozen=True)
class Item:
    """One context of a trial and what is true of it."""

    window: Window
    kind: str
    """`active`, or how it was chosen among silent ones: `random`, `neighbour`, `same_token`."""
    marked: tuple[int, ...]
    """Indices into `window.tokens` that are marked where marks are shown: where it fires, or as many and at such places
    as in an active item of the same trial."""

    @property
    def active(self) -> bool:
        """Whether the latent fires in it."""
        return self.kind == ACTIVE


@dataclass(frozen=True)
class Trial:
    """What a scorer judges an explanation on: contexts from documents that no explainer saw."""

    latent: int
    items: tuple[Item, ...]
    """In a random order of the latent's own."""
    base_rate: float | None = None
    """Share of all windows of this width, on the score side, in which the latent fires."""
    neighbours: tuple[Neighbour, ...] = ()
    """The nearest latents, nearest first."""
    seed: int = 0
    """Of the order, the latent's own: scorers that draw begin from it."""

    @classmethod
    def of(cls, latent: int, active: Sequence[Window], silent: Sequence[Window]) -> "Trial":
        """A trial of active and random silent contexts, in that order."""
        kinds = [ACTIVE] * len(active) + ["random"] * len(silent)
        return cls(latent, tuple(map(_item, (*active, *silent), kinds)))

    @property
    def active(self) -> tuple[Window, ...]:
        """The latent fires in each of these."""
        return tuple(item.window for item in self.items if item.active)

    @property
    def silent(self) -> tuple[Window, ...]:
        """It fires nowhere in any of these."""
        return tuple(item.window for item in self.items if not item.active)

    @property
    def kinds(self) -> dict[str, int]:
        """How many items of each kind there are: silent ones that were not to be found are random ones instead."""
        return dict(Counter(item.kind for item in self.items))

    @property
    def doc_ids(self) -> frozenset[int]:
        """Documents the contexts are from."""
        others = (window for neighbour in self.neighbours for window in neighbour.windows)
        return frozenset(window.doc_id for window in (*(item.window for item in self.items), *others))


def _item(window: Window, kind: str) -> Item:
    fires = tuple(i for i, value in enumerate(window.values) if value)
    return Item(window, kind, fires if kind == ACTIVE else (window.peak,))


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
    prompt: str = ""
    """Id, version and hash of the prompt that it was asked for with; empty where there was none."""
    calls: tuple[str, ...] = ()
    """Keys of the language model's replies that it came from."""
    quoted: float = 0.0
    """Share of its words that stand in runs of six or more copied from a context it was shown: leakage."""
    output_text: str = ""
    """The part of `text` that says what the latent does to the output, where that was asked apart; scorers of outputs
    read it, or `text` where it is empty."""
    candidates: tuple["Candidate", ...] = ()
    """Where it was chosen among several: all of them, itself first."""
    members: tuple[int, ...] = ()
    """The latents that it is of, where it is of a cluster: `latent` is one of them."""


@dataclass(frozen=True)
class Candidate:
    """One of several explanations of a latent, and what it got on the contexts that chose among them."""

    text: str
    seed: int
    """Of the sample."""
    value: float | None
    """Its score there. The winner's is too high by the choice, and is no score of it."""
    n_judged: int
    calls: tuple[str, ...] = ()
    """Keys of the replies that it came from."""


@dataclass(frozen=True)
class Unexplained:
    """A latent for which an explainer has no words; it is counted, never scored."""

    latent: int
    explainer: str
    reason: str
    """`no evidence`, `unreadable` (twice), `cut off`, `not loaded`."""
    calls: tuple[str, ...] = ()
    """Keys of the replies that could not be read."""


@dataclass(frozen=True)
class Judged:
    """One question that a scorer asked, what was true and what was answered."""

    kind: str
    """As `Item.kind`, or what the scorer calls its questions."""
    window: Window | None
    """The context it was about, where it was one."""
    truth: float
    """1 or 0 for yes or no; an activation where one was to be said."""
    answer: float | None
    """None: it could not be read."""
    probability: float | None = None
    """That the judge gave to yes, where it gave one."""
    n_asked: int = 1
    """2 where the first reply could not be read."""
    call: str | None = None
    """Key of the reply it was read from."""
    token: int | None = None
    """Index into `window.tokens` where it was about one token."""
    text: str = ""
    """What was judged where it is not the window: a continuation of it, or a text that a model wrote."""


@dataclass(frozen=True)
class Score:
    """How well an explanation predicts its latent, and how sure that is."""

    value: float | None
    """None when nothing could be judged."""
    interval: tuple[float, float] | None
    """95%, over contexts."""
    chance: float
    """What a scorer that knows nothing gets."""
    n_judged: int
    n_unparsed: int
    bounds: tuple[float, float] | None = None
    """The value were every unparsed answer wrong, and were every one right; None where nothing was unparsed."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Other figures of the same answers, by name in `autointerp.statistics.METRICS`."""
    examples: tuple[Judged, ...] = ()
    """What `value` was computed from."""
    prompt: str = ""
    """Id, version and hash of the prompt; empty where there was none."""
