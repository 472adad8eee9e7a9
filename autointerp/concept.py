"""Latents that stand for a concept, chosen by contrast on some texts and judged on others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from activations.reading import right_padded
from sae.contrast import ChoiceConfig, Contrast, Summary, chosen, contrast
from store.errors import UsageError
from store.shards import TOKEN_CLASSES

if TYPE_CHECKING:
    from autointerp.subject import Subject

BATCH = 16
"""Texts that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class ConceptConfig:
    """How latents are chosen."""

    choice: ChoiceConfig = field(default_factory=ChoiceConfig)
    select_share: float = 0.5
    """Share of the texts that latents are chosen on; all that is measured of them is of the others."""
    seed: int = 0
    """Of who is chosen on."""

    def __post_init__(self) -> None:
        if not 0 < self.select_share < 1:
            raise ValueError(f"select_share={self.select_share} leaves one side no texts: choose between 0 and 1")


class Concept(NamedTuple):
    """What was chosen, and what it may be judged on."""

    latents: list[int]
    """Highest contrast first."""
    found: Contrast
    direction: Tensor
    """`[d_in]` float64: mean activation on the concept's texts less that on the others, over normal tokens."""
    concept: tuple[str, ...]
    """Texts with the concept on which nothing was chosen."""
    other: tuple[str, ...]
    """Texts without."""


def split(texts: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Texts to choose on and texts to judge on, no text in both: one that is there twice is on one side.

    Raises:
        UsageError: there are not two different texts.
    """
    different = sorted(set(texts))
    if len(different) < 2:
        raise UsageError(f"{len(different)} different texts cannot be chosen on and judged on: give two or more")
    order = np.random.default_rng([seed, 11]).permutation(len(different))
    n = min(max(round(share * len(different)), 1), len(different) - 1)
    return [different[i] for i in order[:n]], [different[i] for i in order[n:]]


def choose(subject: "Subject", concept: Sequence[str], other: Sequence[str], cfg: ConceptConfig) -> Concept:
    """Latents that fire on texts with a concept and not on others.

    Args:
        subject: the model and its dictionary.
        concept: texts with it.
        other: texts without, and else alike.
        cfg: how.

    Raises:
        UsageError: too few texts, or no latent is allowed.
    """
    if both := set(concept) & set(other):
        raise UsageError(f"'{min(both)[:60]}' is with the concept and without it: take it out of one of the two")
    (on, judged_on), (off, judged_off) = (split(texts, cfg.select_share, cfg.seed) for texts in (concept, other))
    (with_it, with_mean), (without, other_mean) = read(subject, on), read(subject, off)
    found = contrast(with_it, without)
    latents = chosen(found, cfg.choice)
    if not latents:
        raise UsageError(
            f"no latent fires in {cfg.choice.min_texts:.0%} of {len(on)} texts with the concept and on at most "
            f"{cfg.choice.max_other:.1%} of the other tokens: give more texts, or raise --max-other"
        )
    return Concept(latents, found, with_mean - other_mean, tuple(judged_on), tuple(judged_off))


def read(subject: "Subject", texts: Sequence[str]) -> tuple[Summary, Tensor]:
    """What latents do in texts, and `[d_in]` the mean activation, over normal tokens: no specials and no sinks."""
    parts, total, n = [], torch.zeros(subject.sae.cfg.d_in, dtype=torch.float64), 0
    for at in range(0, len(texts), BATCH):
        ids = [subject.ids(text) for text in texts[at : at + BATCH]]
        x, normal = _activations(subject, ids)
        rows = x[normal]
        with torch.inference_mode():
            latents = subject.sae.encode(rows.to(subject.sae.W_dec))
        parts.append(Summary.of(latents, normal.nonzero()[:, 0], len(ids)))
        total += rows.double().sum(dim=0)
        n += len(rows)
    return Summary.cat(parts), total / max(n, 1)


def mean_activations(subject: "Subject", texts: Sequence[str]) -> np.ndarray:
    """`[n_texts, d_in]` float64 mean activation of each text over its normal tokens; NaN where it has none."""
    parts = [np.empty((0, subject.sae.cfg.d_in))]
    for at in range(0, len(texts), BATCH):
        x, normal = _activations(subject, [subject.ids(text) for text in texts[at : at + BATCH]])
        parts.append(mean_over(x, normal))
    return np.concatenate(parts)


def mean_over(x: Tensor, kept: Tensor) -> np.ndarray:
    """`[text, d_in]` float64 mean of `[text, pos, d_in]` over the positions that are kept; NaN where none is."""
    weights = kept.double()
    return (torch.einsum("tp,tpd->td", weights, x.double()) / weights.sum(dim=1, keepdim=True)).numpy()


def _activations(subject: "Subject", ids: list[list[int]]) -> tuple[Tensor, Tensor]:
    """`[text, pos, d_in]`, and where tokens are normal."""
    tokens, _ = right_padded(ids)
    with subject.busy, torch.inference_mode():
        x = subject.lm.capture(tokens, [subject.hook])[subject.hook.name].flatten(2).float().cpu()
    return x, normal_of(subject, ids, x)


def normal_of(subject: "Subject", ids: Sequence[Sequence[int]], x: Tensor) -> Tensor:
    """`[text, pos]` where tokens of right-padded texts are normal, by their activations `[text, pos, d_in]`."""
    normal = torch.zeros(x.shape[:2], dtype=torch.bool)
    for i, own in enumerate(ids):
        classes = subject.classes(own, x[i, : len(own)].norm(dim=1).numpy())
        normal[i, : len(own)] = torch.from_numpy(classes == TOKEN_CLASSES["normal"])
    return normal
