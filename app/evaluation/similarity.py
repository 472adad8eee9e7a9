"""How alike every two dictionaries are, and the activations that they read, each measure beside its chance level."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import torch

from activations.progress import Progress, no_progress
from app.evaluation.activation_pairs import compare_sides, not_compared
from app.evaluation.dictionary_pairs import compare_decoders, compare_tokens, live_directions
from app.evaluation.itda import random_control
from app.evaluation.layer_pairs import match_layers
from app.evaluation.paired_rows import Side, read_sides, why_unpaired
from app.evaluation.subject import NotApplicable, Subject
from app.evaluation.told import Told, Way
from sae.decoder_match import PARTNER_COS
from sae.itda import ITDA
from store.figures import Figure, Measured

SHOWN_ID = 8
"""Characters of a dictionary's id in a pair's name."""


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig:
    """How much to compare dictionaries on."""

    n_rows: int = 20_000
    """Held-out rows, and as many training rows where something is fitted; drawn from all over the text."""
    classes: tuple[str, ...] = ("normal",)
    """Token classes of them: a row is taken if its class is one of these at every hook point."""
    n_anchors: int = 300
    """Held-out rows that relative representations are relative to."""
    variance_kept: float = 0.99
    """Share of each side's variance that SVCCA keeps."""
    partner_cos: float = PARTNER_COS
    """Cosine of decoder rows from which on two latents are partners."""
    max_paired: int = 8192
    """Larger dictionaries are not paired one to one, which takes a time that grows with the cube of their size."""
    n_firing_rows: int = 32_768
    """Rows on which a latent must fire once for its direction to be compared."""
    seed: int = 0
    """Of the rows, the anchors, the random dictionaries and the shuffled rows."""

    @classmethod
    def quick(cls) -> "SimilarityConfig":
        """A tenth of the rows; larger dictionaries are not paired."""
        return cls(n_rows=2000, max_paired=2048, n_firing_rows=8192)


def measure_similarity(
    cfg: SimilarityConfig, subjects: Sequence[Subject], progress: Progress = no_progress
) -> Measured:
    """Every pair of different dictionaries, named `A ~ B` in the figures' setting, or `A → B` where direction matters.

    Raises:
        NotApplicable: there are not two different ones.
    """
    subjects = list({(s.name, s.activations.name): s for s in subjects}.values())
    if len(subjects) < 2:
        raise NotApplicable(f"`similarity` compares dictionaries, and {len(subjects)} was named: name two or more")
    sides = read_sides(subjects, cfg.classes, cfg.n_rows, cfg.seed)
    pairs = list(combinations(subjects, 2))
    comparison = _Comparison(cfg, sides)
    shown = progress(pairs, len(pairs), f"compare {len(subjects)} dictionaries")
    figures = [figure for a, b in shown for figure in comparison.of(a, b)]
    return Measured([*figures, *match_layers(subjects, figures, label, arrow)])


def label(a: Subject, b: Subject) -> str:
    """A pair's name where its direction does not matter."""
    return f"{_one(a)} ~ {_one(b)}"


def arrow(a: Subject, b: Subject) -> str:
    """A pair's name where it does."""
    return f"{_one(a)} → {_one(b)}"


def _one(subject: Subject) -> str:
    return f"{subject.name[:SHOWN_ID]} {subject.activations.hook_point}"


class _Comparison:
    """Compares pairs; what several pairs have in common is made once."""

    def __init__(self, cfg: SimilarityConfig, sides: dict[str, Side]) -> None:
        self.cfg, self._sides = cfg, sides
        self._control = cache(lambda subject: random_control(subject, cfg.seed))
        self._told = cache(self._compare_sides)
        # dead latents keep the directions they began with, which two runs of one seed share
        self._alive = cache(lambda subject: live_directions(subject, cfg.n_firing_rows))

    def of(self, a: Subject, b: Subject) -> Iterator[Figure]:
        """All figures of a pair."""
        control = self._control(a) if isinstance(a.sae, ITDA) and isinstance(b.sae, ITDA) else None
        told = [
            *compare_tokens(a, b, control),
            *compare_decoders(self._alive(a), self._alive(b), self.cfg.partner_cos, self.cfg.max_paired, self.cfg.seed),
            *self._of_activations(a, b),
        ]
        names: dict[Way, str] = {"both": label(a, b), "forth": arrow(a, b), "back": arrow(b, a)}
        return (one.figure(names) for one in told)

    def _of_activations(self, a: Subject, b: Subject) -> Sequence[Told]:
        if reason := why_unpaired(a.activations, b.activations):
            return not_compared(reason)
        return self._told(a.activations.name, b.activations.name)

    def _compare_sides(self, a: str, b: str) -> Sequence[Told]:
        cfg = self.cfg
        generator = torch.Generator().manual_seed(cfg.seed)
        told = compare_sides(self._sides[a], self._sides[b], cfg.n_anchors, cfg.variance_kept, generator)
        return [one.of_class("+".join(cfg.classes)) for one in told]
