"""People rate explanations blind: what is shown, what is kept, and how raters agree with one another and with scorers.

A sheet mixes explanations of several explainers with some of other latents (the null `shuffled`), in a seeded order;
who wrote which is kept beside the rating and never shown.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from autointerp.latent import Explanation
from autointerp.statistics import Agreement, Comparison, Mean, clustered_mean, cohen_kappa, compare, correlated
from store.errors import UsageError
from store.notes import BlindRating, Notes

ARMS = ("explanation", "shuffled")


class Key(NamedTuple):
    """What a rating and a score are both of."""

    latent: int
    run: str
    """That wrote the explanation."""
    explainer: str
    arm: str


@dataclass(frozen=True, kw_only=True)
class SheetConfig:
    """What one person rates in one sitting."""

    n: int = 50
    """Explanations shown, nulls among them."""
    share_null: float = 0.2
    """Of those, written for another latent: how a rater does on these says what a rating is worth."""
    n_contexts: int = 5
    """Beside each explanation, of documents that no explainer saw."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.share_null < 1:
            raise UsageError(f"n={self.n}, share_null={self.share_null}: choose n >= 1 and 0 <= share_null < 1")


class Shown(NamedTuple):
    """All that a rater sees of it."""

    place: int
    latent: int
    text: str


@dataclass(frozen=True)
class Item:
    """One explanation on a sheet, and where it is from."""

    latent: int
    """Beside whose contexts it is shown."""
    text: str
    run: str
    explainer: str
    arm: str


@dataclass(frozen=True)
class Sheet:
    """Explanations in the order in which they are rated."""

    id: str
    """Hash of the items: the same explanations and settings give the same sheet to every rater."""
    items: tuple[Item, ...]

    @property
    def shown(self) -> tuple[Shown, ...]:
        """Without anything that tells one explainer, or a null, from another."""
        return tuple(Shown(place, item.latent, item.text) for place, item in enumerate(self.items))

    def rate(self, notes: Notes, sae: str, place: int, value: int, author: str) -> None:
        """Keep a rating from 1 (does not fit at all) to 5; of the same place and author the newest counts.

        Raises:
            UsageError: there is no such place, or the rating cannot be kept.
        """
        if not 0 <= place < len(self.items):
            raise UsageError(
                f"there is no place {place} on a sheet of {len(self.items)}: choose 0 to {len(self.items) - 1}"
            )
        notes.rate_blind(sae, value=value, author=author, sheet=self.id, place=place, **vars(self.items[place]))


def blind_sheet(explanations: Mapping[str, Sequence[Explanation]], cfg: SheetConfig) -> Sheet:
    """Explanations drawn from each run (by id) in turn, and nulls, in a random order; no latent with one text twice.

    Nulls stand beside latents whose own explanation is on the sheet, a second of a latent only where each has one: the
    two are compared latent by latent. Others follow where these are too few.

    Raises:
        UsageError: there is nothing to draw from.
    """
    random = np.random.default_rng(cfg.seed)
    n_null = round(cfg.n * cfg.share_null)
    own = _in_turn([[_item(run, each) for each in given] for run, given in explanations.items()], random)
    others = _in_turn([_swapped(run, given, random) for run, given in explanations.items()], random)
    rated = _distinct(own)[: cfg.n - n_null]
    chosen = _distinct([*rated, *_beside(rated, _distinct(others))[:n_null]])
    if not chosen:
        raise UsageError("there is no explanation to rate: run `monosem explain` first")
    items = tuple(chosen[i] for i in random.permutation(len(chosen)))
    return Sheet(hashlib.sha256(repr(items).encode()).hexdigest()[:16], items)


def _item(run: str, explanation: Explanation) -> Item:
    return Item(explanation.latent, explanation.text, run, explanation.explainer, "explanation")


def _swapped(run: str, given: Sequence[Explanation], random: np.random.Generator) -> list[Item]:
    """Every latent of a run beside the explanation of another: a turn of a random order leaves none in its place."""
    order = random.permutation(len(given)) if len({each.latent for each in given}) > 1 else np.array([], int)
    pairs = [(given[i], given[j]) for i, j in zip(order.tolist(), np.roll(order, 1).tolist(), strict=True)]
    return [
        Item(here.latent, there.text, run, there.explainer, "shuffled")
        for here, there in pairs
        if here.latent != there.latent and here.text != there.text
    ]


def _beside(rated: Sequence[Item], nulls: Sequence[Item]) -> list[Item]:
    """`nulls` in another order: first one of every latent that is rated, then a second, and so on; others last."""
    latents, seen, ranks = {item.latent for item in rated}, Counter[int](), []
    for item in nulls:
        ranks.append((item.latent not in latents, seen[item.latent]))
        seen[item.latent] += 1
    return [nulls[i] for i in sorted(range(len(nulls)), key=ranks.__getitem__)]


def _in_turn(groups: Sequence[Sequence[Item]], random: np.random.Generator) -> list[Item]:
    """One of each group, then a second of each, and so on, each group in a random order."""
    mixed = [[group[i] for i in random.permutation(len(group))] for group in groups]
    longest = max(map(len, mixed), default=0)
    return [group[i] for i in range(longest) for group in mixed if i < len(group)]


def _distinct(items: Sequence[Item]) -> list[Item]:
    return list({(item.latent, item.text): item for item in reversed(items)}.values())[::-1]


@dataclass(frozen=True)
class RatingReport:
    """What people's ratings say of explainers, and how far they and the scorers agree."""

    n_ratings: int
    n_items: int
    """Distinct explanations rated, nulls among them."""
    explainers: Mapping[str, Mean]
    """Mean rating of each, by latent; nulls left out."""
    against_null: Comparison
    """Of explanations and shuffled ones of the same latents."""
    raters: Mapping[tuple[str, str], Agreement]
    """Cohen's κ of every two raters over what both were shown, on whichever sheet, weighted by squared distance."""
    scorers: Mapping[str, Agreement]
    """Spearman's ρ of the mean rating with each scorer's value."""


def rating_report(ratings: Sequence[BlindRating], scores: Mapping[str, Mapping[Key, float | None]]) -> RatingReport:
    """All that is known from blind ratings.

    Args:
        ratings: of one dictionary, as `Notes.blind_ratings` gives them.
        scores: by scorer, the value of each explanation.
    """
    means = {key: float(np.mean(values)) for key, values in _grouped(ratings).items()}
    explainers = sorted({explainer for _, _, explainer, arm in means if arm == ARMS[0]})
    return RatingReport(
        n_ratings=len(ratings),
        n_items=len(means),
        explainers={name: _mean_of(means, name) for name in explainers},
        against_null=compare(*(_by_latent(means, arm) for arm in ARMS)),
        raters=_between_raters(ratings),
        scorers={
            name: correlated(
                [means[key] for key in means if key in given], [given[key] for key in means if key in given]
            )
            for name, given in scores.items()
        },
    )


def _grouped(ratings: Sequence[BlindRating]) -> dict[Key, list[int]]:
    found: dict[Key, list[int]] = {}
    for rating in ratings:
        found.setdefault(Key(rating.latent, rating.run, rating.explainer, rating.arm), []).append(rating.value)
    return found


def _mean_of(means: Mapping[Key, float], explainer: str) -> Mean:
    chosen = {key: value for key, value in means.items() if (key.explainer, key.arm) == (explainer, ARMS[0])}
    return clustered_mean(list(chosen.values()), [key.latent for key in chosen])


def _by_latent(means: Mapping[Key, float], arm: str) -> dict[int, float | None]:
    latents = {key.latent for key in means if key.arm == arm}
    return {
        latent: float(np.mean([value for key, value in means.items() if key.latent == latent and key.arm == arm]))
        for latent in sorted(latents)
    }


def _between_raters(ratings: Sequence[BlindRating]) -> dict[tuple[str, str], Agreement]:
    by_author: dict[str, dict[tuple[Key, str], int]] = {}
    for rating in ratings:
        shown = Key(rating.latent, rating.run, rating.explainer, rating.arm), rating.text
        by_author.setdefault(rating.author, {})[shown] = rating.value
    found = {}
    for one, other in combinations(sorted(by_author), 2):
        both = sorted(by_author[one].keys() & by_author[other].keys())
        left, right = ([by_author[author][shown] for shown in both] for author in (one, other))
        found[one, other] = cohen_kappa(left, right, "quadratic")
    return found
