"""How two dictionaries are matched."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """What counts as a match, and as a split family."""

    quantile: float = 0.99
    """Of the null's best partners: a pair at or below it is unmatched."""
    min_fired: int = 10
    """A latent that fires on fewer tokens is not matched by what it fires on: chance alone gives such latents
    partners."""
    max_paired: int = 8192
    """Larger dictionaries are paired by being each other's nearest instead of one to one, which takes a time that
    grows with the cube of their size."""
    min_implied: float = 0.8
    """Share of a child's firings on which its parent fires too."""
    min_share: float = 0.05
    """Share of the parent's firings on which a child fires."""
    min_coverage: float = 0.6
    """Share of the parent's firings that its children cover between them."""
    seed: int = 0
    """Of the random dictionaries and of the rotation."""

    def __post_init__(self) -> None:
        for name in ("quantile", "min_implied", "min_share", "min_coverage"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is no share: choose 0 < {name} <= 1")
        for name in ("min_fired", "max_paired"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} leaves nothing to match: choose {name} >= 1")
