"""How contexts are drawn: the settings of `autointerp.sample`."""

from dataclasses import dataclass

COUNTS = ("n_explain", "n_score", "min_contexts", "min_docs", "half_window", "seed", "n_silent", "n_neighbours")
"""Fields that are 0 or more."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How contexts are drawn."""

    n_explain: int = 30
    """Active contexts an explainer sees."""
    n_score: int = 50
    """Active contexts, and as many silent ones, that a scorer judges."""
    min_contexts: int = 8
    """Latents with fewer active contexts on either side are not chosen."""
    min_docs: int = 4
    """Nor those that fire in fewer documents on either side."""
    max_density: float = 0.02
    """Nor those that fire on more than this share of tokens: few windows are silent."""
    half_window: int = 5
    """Tokens on either side of the peak: explanations of a token and what precedes it are judged near the token."""
    seed: int = 0
    """Of the split of documents and of every draw."""
    neighbour_share: float = 0.25
    """Of a trial's silent contexts, in which one of the nearest latents by decoder cosine fires."""
    same_token_share: float = 0.25
    """Of a trial's silent contexts, whose peak is a token on which the latent fires elsewhere. The others are at random
    places, as are those that stand in for what is not to be found."""
    select_share: float = 0.0
    """Of all documents, kept from scoring to choose among several explanations of a latent."""
    n_silent: int = 10
    """Silent contexts an explainer sees, if it wants any."""
    n_neighbours: int = 5
    """Nearest latents looked at."""
    per_neighbour: int = 5
    """Contexts shown of each."""

    def __post_init__(self) -> None:
        for name in COUNTS:
            _check_range(name, getattr(self, name), 0, None)
        _check_range("per_neighbour", self.per_neighbour, 1, None)
        for name in ("neighbour_share", "same_token_share"):
            _check_range(name, getattr(self, name), 0, 1)
        _check_range("neighbour_share + same_token_share", self.neighbour_share + self.same_token_share, 0, 1)
        _check_range("select_share", self.select_share, 0, 0.4)


def _check_range(name: str, value: int | float, low: int | float, high: int | float | None) -> None:
    if value < low or (high is not None and value > high):
        rule = f"{low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name}={value} is out of range: choose {rule}")
