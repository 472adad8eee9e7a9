"""Which latents tell texts with a concept from texts without: what is higher, more often there, or ranks them.

Contrast, not height: latents of the highest mean activation on a concept's texts are mostly those that fire on
everything (selection as in SAeUron, arXiv:2501.18052, and in "Breaking bad tokens", arXiv:2505.14536).
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.sparse import SparseLatents


class Summary(NamedTuple):
    """What latents do in texts."""

    peak: Float[Tensor, "text d_sae"]
    """Highest activation over a text's tokens."""
    total: Float[Tensor, "text d_sae"]
    """Sum over its tokens."""
    n_fired: Float[Tensor, "text d_sae"]
    """Tokens on which it is above 0."""
    n_tokens: Int[Tensor, " text"]

    @classmethod
    def of(cls, latents: SparseLatents, text: Int[Tensor, " batch"], n_texts: int) -> "Summary":
        """Of rows that are tokens; `text` says of which text each is."""
        d_sae = latents.pattern.d_sae
        place = text[latents.rows] * d_sae + latents.indices
        values = latents.values.float()
        empty = values.new_zeros(n_texts * d_sae)
        shape = (n_texts, d_sae)
        return cls(
            empty.scatter_reduce(0, place, values, "amax").view(shape),
            empty.index_add(0, place, values).view(shape),
            empty.index_add(0, place, (values > 0).float()).view(shape),
            torch.bincount(text, minlength=n_texts),
        )

    @classmethod
    def cat(cls, parts: "list[Summary]") -> "Summary":
        """The texts of all parts."""
        return cls(*map(torch.cat, zip(*parts, strict=True)))

    def __getitem__(self, texts: object) -> "Summary":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Summary(*(part[texts] for part in tuple(self)))  # pyright: ignore[reportArgumentType, reportCallIssue]


class Contrast(NamedTuple):
    """Of each latent, texts with the concept against those without; all `[d_sae]`, float64."""

    mean: Tensor
    """Difference of mean activations over tokens."""
    frequency: Tensor
    """Difference of the shares of tokens on which it fires."""
    auroc: Tensor
    """Of texts ranked by its highest activation; 0.5 where it tells nothing. Ties count half."""
    of_tokens: Tensor
    """Share of the concept's tokens on which it fires."""
    of_other_tokens: Tensor
    """Share of the others'."""
    of_texts: Tensor
    """Share of the concept's texts in which it fires."""
    of_other_texts: Tensor


def contrast(concept: Summary, other: Summary) -> Contrast:
    """Compare texts with a concept and texts without.

    Raises:
        ValueError: one of the two has no texts.
    """
    if not len(concept.n_tokens) or not len(other.n_tokens):
        raise ValueError("a contrast needs texts with the concept and texts without: one of the two is empty")
    (with_mean, with_rate), (other_mean, other_rate) = map(_per_token, (concept, other))
    return Contrast(
        with_mean - other_mean,
        with_rate - other_rate,
        aurocs(concept.peak, other.peak),
        with_rate,
        other_rate,
        (concept.n_fired > 0).double().mean(dim=0),
        (other.n_fired > 0).double().mean(dim=0),
    )


def _per_token(texts: Summary) -> tuple[Tensor, Tensor]:
    n = texts.n_tokens.sum().clamp(min=1).double()
    return texts.total.double().sum(dim=0) / n, texts.n_fired.double().sum(dim=0) / n


def aurocs(high: Float[Tensor, "n d"], low: Float[Tensor, "m d"]) -> Float[Tensor, " d"]:
    """`[d]` float64: how often a value of `high` is above one of `low`, column by column; ties count half.

    Mann and Whitney 1947, by ranks.
    """
    every = torch.cat([high, low]).double()
    ordered, _ = every.sort(dim=0)
    # The mean of the first and the last place of a value among all is its mean rank.
    first = torch.searchsorted(ordered.t().contiguous(), high.double().t().contiguous())
    last = torch.searchsorted(ordered.t().contiguous(), high.double().t().contiguous(), right=True)
    ranks = (first + last + 1).double() / 2
    n, m = len(high), len(low)
    return (ranks.sum(dim=1) - n * (n + 1) / 2) / (n * m)


@dataclass(frozen=True, kw_only=True)
class ChoiceConfig:
    """Which latents stand for a concept."""

    by: str = "frequency"
    """mean, frequency or auroc: the contrast that ranks them."""
    n_latents: int = 10
    """At most."""
    max_other: float = 0.01
    """Share of tokens without the concept on which a latent may fire: those of punctuation or of everything may not."""
    min_texts: float = 0.1
    """Share of the concept's texts in which a latent has to fire."""

    def __post_init__(self) -> None:
        if self.by not in ("mean", "frequency", "auroc"):
            raise ValueError(f"by={self.by!r} is not known: choose mean, frequency or auroc")
        if self.n_latents < 1:
            raise ValueError(f"n_latents={self.n_latents} chooses nothing: choose 1 or more")
        for name in ("max_other", "min_texts"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is no share: choose 0 to 1")


def chosen(found: Contrast, cfg: ChoiceConfig) -> list[int]:
    """The latents of the highest contrast that are allowed, highest first; those that tell nothing are none."""
    score = getattr(found, cfg.by)
    nothing = 0.5 if cfg.by == "auroc" else 0.0
    allowed: Bool[Tensor, " d_sae"] = (
        (found.of_other_tokens <= cfg.max_other) & (found.of_texts >= cfg.min_texts) & (score > nothing)
    )
    order = score.masked_fill(~allowed, -torch.inf).argsort(descending=True, stable=True)
    return order[: min(cfg.n_latents, int(allowed.sum()))].tolist()


def alike(
    latents: list[int],
    density: Float[Tensor, " d_sae"],
    seed: int,
    n_nearest: int = 20,
    never: Collection[int] = (),
) -> list[int]:
    """As many other latents, each drawn from the `n_nearest` whose log density is nearest to that of one of `latents`.

    Args:
        latents: to be alike.
        density: share of tokens that each latent of the dictionary fires on.
        seed: of the draw.
        n_nearest: drawn from.
        never: others that are not drawn either.

    Raises:
        ValueError: there are not so many others that fire.
    """
    generator = torch.Generator().manual_seed(seed)
    free = (density > 0).clone()
    free[[*latents, *never]] = False
    if int(free.sum()) < len(latents):
        raise ValueError(f"{int(free.sum())} other latents fire, {len(latents)} are needed: choose fewer")
    log, drawn = density.double().clamp(min=1e-300).log(), []
    for latent in latents:
        distance = (log - log[latent]).abs().masked_fill(~free, torch.inf)
        near = distance.argsort(stable=True)[: min(n_nearest, int(free.sum()))]
        drawn.append(int(near[torch.randint(len(near), (), generator=generator)]))
        free[drawn[-1]] = False
    return drawn
