"""Which latents of two dictionaries are the same, by weights, by activations, by explanations; and do these agree?

Latents are paired one to one by one measure (Hungarian, or each other's nearest in large dictionaries), and another
measure is read off the pairs: how alike are explanations of latents whose decoder rows are alike? Over pairs of layers
this tells nearby ones from far ones, as Paulo et al. 2024 do, arXiv:2410.13928. The null of the pairing is random
directions of the same mean and covariance; that of the second measure is the same latents, paired at random.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.embedders import Embedder
from autointerp.matching.directions import NULL, Directions
from autointerp.matching.pairing import Pairs
from autointerp.matching.survey import survey_directions
from autointerp.matching.tables import Measured
from autointerp.statistics import Comparison, Mean, clustered_mean, compare
from autointerp.statistics.across import N_PERMUTATIONS
from sae.geometry import unit_rows
from store.errors import UsageError
from store.matching import Matching

Vectors = Float[Tensor, "_ _"]
"""A row for each latent of one dictionary: [d_sae, d]."""
MIN_LAYERS = 5
"""Of a p-value: four have 12 orders that are not each other's reverse, and none of them can be rarer than 1 in 12."""


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """How latents are paired, and with what chance they are compared."""

    quantile: float = 0.99
    """Of the null's best partners: a pair at or below it is not kept."""
    max_paired: int = 8192
    """Larger dictionaries are paired by being each other's nearest: one to one takes a time of the cube."""
    n_permutations: int = 1000
    """Random pairings of the paired latents."""
    seed: int = 0


def by_vectors(a: Vectors, b: Vectors, cfg: AlignConfig) -> Measured:
    """Pairs by the cosine of rows: decoder rows of one space, or embeddings of explanations by one embedder.

    Rows that are zero or not finite (dead, not explained) are in no pair.

    Raises:
        UsageError: the rows are of different widths, or a side has none.
    """
    if a.shape[1] != b.shape[1]:
        raise UsageError(f"rows of width {a.shape[1]} and {b.shape[1]} are not of one space: align by activations")
    rows = Directions(*(_live(each) for each in (a, b)))
    if not all(bool(each.isfinite().all(dim=1).any()) for each in rows):
        raise UsageError(
            "a dictionary has no live row to align by: choose one with latents that fire, or are explained"
        )
    keep = max(len(a), len(b)) <= cfg.max_paired
    null = rows.randomised(torch.Generator().manual_seed(cfg.seed))
    found, chance = (survey_directions(each, keep=keep) for each in (rows, null))
    return Measured.of(found, chance, NULL, cfg.quantile)


def _live(rows: Tensor) -> Tensor:
    unit = unit_rows(rows.detach().cpu())
    unit[~unit.isfinite().all(dim=1) | (unit.norm(dim=1) == 0)] = torch.nan
    return unit


def kept(measured: Measured) -> Pairs:
    """The pairs above what chance gives."""
    return Pairs(*(column[measured.matched] for column in measured.pairs))


def by_activations(matching: Matching) -> Pairs:
    """The pairs of `monosem match` by correlation on the same tokens, above what its null gives."""
    found = matching.sql("SELECT a, b, value FROM one_to_one WHERE measure = 'correlation' AND matched ORDER BY a")
    return Pairs(*(found[name].to_numpy() for name in ("a", "b", "value")))


def embedded(explanations: Mapping[int, str], d_sae: int, embedder: Embedder) -> Float[Tensor, "{d_sae} d"]:
    """A row for each latent, NaN where it has no explanation or an empty one.

    Raises:
        UsageError: no latent is explained.
    """
    latents = [latent for latent, text in explanations.items() if text.strip()]
    if not latents:
        raise UsageError("no latent is explained: run `monosem explain` on both dictionaries")
    vectors = torch.from_numpy(np.asarray(embedder([explanations[latent] for latent in latents]))).double()
    rows = torch.full((d_sae, vectors.shape[1]), torch.nan, dtype=vectors.dtype)
    rows[latents] = vectors
    return rows


@dataclass(frozen=True)
class Alignment:
    """A pairing of two dictionaries, and how alike its pairs are by another measure."""

    pairs: Pairs
    """All pairs; `value` is what they were paired by."""
    likeness: np.ndarray
    """[n_pairs], by the other measure; NaN where a side has none."""
    null: np.ndarray
    """[n_pairs], the mean likeness of each a to the b of all other pairs: what it has in a random pairing."""
    mean: Mean
    """Of `likeness`, over pairs."""
    above_null: Comparison
    """Likeness − null; its p-value is of random pairings of the same latents."""

    @property
    def table(self) -> dict[str, np.ndarray]:
        """A row for each pair."""
        return {**self.pairs._asdict(), "likeness": self.likeness, "null": self.null}


def judged(pairs: Pairs, a: Vectors, b: Vectors, cfg: AlignConfig) -> Alignment:
    """How alike paired latents are by the rows of `a` and `b`, such as of explanations where weights paired them."""
    rows_a, rows_b = _live(a)[pairs.a], _live(b)[pairs.b]
    both = (rows_a.isfinite().all(dim=1) & rows_b.isfinite().all(dim=1)).numpy()
    likeness, null = np.full(len(both), np.nan), np.full(len(both), np.nan)
    cosines = (rows_a[both] @ rows_b[both].t()).numpy()
    likeness[both] = np.diag(cosines)
    n = len(cosines)
    if n > 1:
        null[both] = (cosines.sum(axis=1) - np.diag(cosines)) / (n - 1)
    compared = compare(*(_by_pair(each) for each in (likeness, null)), seed=cfg.seed)
    return Alignment(
        pairs,
        likeness,
        null,
        clustered_mean(list(_by_pair(likeness).values()), list(range(len(both)))),
        _with_p(compared, _permuted_p(cosines, cfg) if n > 1 else None),
    )


def _by_pair(values: np.ndarray) -> dict[int, float | None]:
    return {i: None if np.isnan(value) else float(value) for i, value in enumerate(values)}


def _with_p(found: Comparison, p_value: float | None) -> Comparison:
    return Comparison(**{**vars(found), "p_value": p_value})


def _permuted_p(cosines: np.ndarray, cfg: AlignConfig) -> float:
    """One-sided: how often a random pairing is as alike, the observed one counted."""
    random, rows = np.random.default_rng(cfg.seed), np.arange(len(cosines))
    observed = np.trace(cosines) * (1 - 1e-12)
    as_alike = sum(cosines[rows, random.permutation(rows)].sum() >= observed for _ in range(cfg.n_permutations))
    return (int(as_alike) + 1) / (cfg.n_permutations + 1)


class Distance(NamedTuple):
    """All pairs of layers that are as far apart."""

    layers_apart: int
    n_alignments: int
    above_null: Mean
    """Likeness − null of the paired latents, clustered by pair of layers: one pair of layers alone has no interval."""


class NearFar(NamedTuple):
    """The nearest pairs of layers against the farthest."""

    difference: float | None
    """Mean likeness above the null of the nearest pairs of layers, less that of the farthest; None where either has no
    judged pair of latents."""
    p_value: float | None
    """Two-sided, of putting the layers in a random order; None where fewer than `MIN_LAYERS` were aligned, or not all
    of their pairs."""
    n_near: int
    """Pairs of layers."""
    n_far: int


@dataclass(frozen=True)
class Nearness:
    """Whether dictionaries of nearby layers are more alike than those of far ones."""

    distances: tuple[Distance, ...]
    """Nearest first."""
    near_minus_far: NearFar | None
    """None with one distance."""


def by_distance(alignments: Sequence[tuple[int, int, Alignment]], seed: int = 0) -> Nearness:
    """Likeness above the null by how many layers lie between.

    Args:
        alignments: (layer of a, layer of b, alignment) of every pair of dictionaries that was aligned.
        seed: of the orders of the layers, where these are too many to try all.

    Raises:
        UsageError: there is none.
    """
    if not alignments:
        raise UsageError("no two layers were aligned: name at least two dictionaries")
    apart: dict[int, list[Alignment]] = {}
    for layer_a, layer_b, alignment in alignments:
        apart.setdefault(abs(layer_a - layer_b), []).append(alignment)
    order = sorted(apart)
    distances = tuple(Distance(each, len(apart[each]), _above(apart[each])) for each in order)
    if len(order) < 2:
        return Nearness(distances, None)
    return Nearness(distances, _near_far(_of_layers(alignments), order[0], order[-1], seed))


def _of_layers(alignments: Sequence[tuple[int, int, Alignment]]) -> dict[tuple[int, int], float]:
    """By pair of layers, the lower first, the mean over its alignments of their mean likeness above the null."""
    found: dict[tuple[int, int], list[float]] = {}
    for layer_a, layer_b, each in alignments:
        above = (each.likeness - each.null)[~np.isnan(each.likeness - each.null)]
        if above.size:
            found.setdefault((min(layer_a, layer_b), max(layer_a, layer_b)), []).append(float(above.mean()))
    return {pair: float(np.mean(values)) for pair, values in found.items()}


def _near_far(likeness: Mapping[tuple[int, int], float], nearest: int, farthest: int, seed: int) -> NearFar:
    near, far = ([pair for pair in likeness if pair[1] - pair[0] == apart] for apart in (nearest, farthest))
    if not near or not far:
        return NearFar(None, None, len(near), len(far))
    difference = float(np.mean([likeness[pair] for pair in near]) - np.mean([likeness[pair] for pair in far]))
    return NearFar(difference, _reordered_p(likeness, near, far, seed), len(near), len(far))


def _reordered_p(
    likeness: Mapping[tuple[int, int], float],
    near: Sequence[tuple[int, int]],
    far: Sequence[tuple[int, int]],
    seed: int,
) -> float | None:
    """Mantel 1967: pairs of layers share layers, and only whole layers may be exchanged. Their latents are no draws of
    the layers at all: a hundred thousand of one pair of layers say nothing of another pair."""
    layers = sorted({layer for pair in likeness for layer in pair})
    if len(layers) < MIN_LAYERS or set(likeness) != set(combinations(layers, 2)):
        return None
    place = {layer: i for i, layer in enumerate(layers)}
    table = np.zeros((len(layers), len(layers)))
    for (a, b), value in likeness.items():
        table[place[a], place[b]] = table[place[b], place[a]] = value
    every = math.factorial(len(layers)) <= N_PERMUTATIONS
    if every:
        orders = np.array(list(permutations(range(len(layers)))))
    else:
        own = np.arange(len(layers))
        orders = np.stack([own, *np.random.default_rng(seed).permuted(np.tile(own, (N_PERMUTATIONS, 1)), axis=1)])
    of_near, of_far = (
        table[orders[:, [place[a] for a, _ in side]], orders[:, [place[b] for _, b in side]]].mean(axis=1)
        for side in (near, far)
    )
    differences = np.abs(of_near - of_far)
    return float(np.mean(differences >= differences[0] * (1 - 1e-12)))


def _above(group: Sequence[Alignment]) -> Mean:
    rows = [(value, i) for i, each in enumerate(group) for value in _by_pair(each.likeness - each.null).values()]
    return clustered_mean([value for value, _ in rows], [i for _, i in rows])
