"""What an index keeps of every latent."""

from dataclasses import dataclass

from store.shards import TOKEN_CLASSES


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """What to keep of every latent."""

    classes: tuple[str, ...] = ("normal",)
    """Token classes that count, first positions always left out."""
    n_top: int = 20
    """Strongest contexts kept."""
    n_bands: int = 4
    """Bands of its range, weak to strong: of equal count (`q1` …), and of equal width in value (`v1` …)."""
    per_band: int = 5
    """Contexts drawn from each band."""
    n_near: int = 5
    """Near misses kept: silent tokens of the highest pre-activation."""
    n_silent: int = 5
    """Silent contexts kept whose token is one on which it does fire."""
    half_window: int = 24
    """Tokens shown on either side of a peak."""
    n_logits: int = 10
    """Most promoted and most suppressed tokens kept."""
    n_ngrams: int = 10
    """Commonest tokens, and commonest pairs of tokens, on which it fires."""
    n_neighbours: int = 16
    """Nearest latents kept by decoder and by encoder cosine."""
    n_coactive: int = 8
    """Latents kept by each of Jaccard, φ, PMI and implication."""
    n_bins: int = 40
    """Bins of the activation histogram."""
    max_events: int = 1_000_000
    """Events kept of one latent at most, about: of one that fires more often, those of a sample of sequences."""
    seed: int = 0
    """Of every draw."""

    def __post_init__(self) -> None:
        unknown = set(self.classes) - set(TOKEN_CLASSES)
        if unknown or not self.classes:
            raise ValueError(f"classes={self.classes}: choose of {', '.join(TOKEN_CLASSES)}")
        for name in ("n_top", "n_bands", "per_band", "n_logits", "n_bins", "max_events"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} keeps nothing: choose {name} >= 1")
        for name in ("n_near", "n_silent", "half_window", "n_ngrams", "n_neighbours", "n_coactive"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative: choose {name} >= 0")
