"""How alike two dictionaries of activations are: whether they chose the same tokens.

    J = |A ∩ B| / |A ∪ B| of the sets of (sequence, position) that the atoms are from. By chance alone |A ∩ B| would be
    |A|·|B| / N, which gives J_c; adjusted is (J − J_c) / (1 − J_c).

Leask, Nanda & Al Moubayed 2025, arXiv:2505.17769, section 5; the correction is ours. It means something only where both
saw the same tokens in the same order, so anything else is refused: two tokenisers never agree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.itda import ITDA, NOT_BUILT
from sae.similarity import matched_layers


class Overlap(NamedTuple):
    """Two sets of tokens."""

    jaccard: float
    """Shared tokens over all tokens of either."""
    chance: float
    """What two even draws of these sizes would have."""
    adjusted: float | None
    """0 at chance and 1 where the sets are equal; None where chance alone makes them equal."""


class LayerMatch(NamedTuple):
    """Whether a layer of one model is most like the same layer of another."""

    accuracy: float
    """Share of (model, other model, layer) whose best match is that layer, and no other one as good."""
    n_judged: int
    """How many there were."""
    jaccard: Float[Tensor, "model other layer other_layer"]
    """Of every layer of every model with every other, plain; the diagonal of two models alike is 1."""


class Chosen(NamedTuple):
    """The tokens that either of two dictionaries chose."""

    doc_id: Int[Tensor, " n"]
    """Document of each."""
    by_both: Bool[Tensor, " n"]
    """Whether both did."""


def jaccard(a: ITDA, b: ITDA, without: Int[Tensor, " n"] | None = None) -> Overlap:
    """Overlap of two dictionaries.

    Args:
        a: one dictionary.
        b: the other.
        without: numbers of tokens that do not count, as `seed_tokens` gives them.

    Raises:
        ValueError: they were built on different token streams, one has no record of it, or no atom is left.
    """
    if without is None:
        return jaccard_of_models([a], [b])
    _check_stream([a, b])
    of_a, of_b = (_left(_labels([itda]), without) for itda in (a, b))
    if not len(of_a) or not len(of_b):
        raise ValueError("a dictionary has no atom but the rows that it began with: build it from more rows")
    return _overlap(of_a, of_b, max(a.cfg.n_tokens, b.cfg.n_tokens) - len(without))


def seed_tokens(a: ITDA, b: ITDA, n_seed: tuple[int, int]) -> Int[Tensor, " n"]:
    """The tokens that either dictionary began with, its first `n_seed` atoms: taken unjudged, and so the same ones in
    every dictionary of a stream. They are shared by construction, and chance does not know of it."""
    return torch.cat([_label(itda)[:n] for itda, n in zip((a, b), n_seed, strict=True)]).unique()


def chosen_tokens(a: ITDA, b: ITDA, without: Int[Tensor, " n"] | None = None) -> Chosen:
    """What `jaccard` counts, token by token: for an interval over documents.

    Raises:
        ValueError: as `jaccard`.
    """
    _check_stream([a, b])
    labels, docs = torch.cat([_label(a), _label(b)]), torch.cat([a.atom_doc, b.atom_doc]).cpu()
    tokens, which, counts = labels.unique(return_inverse=True, return_counts=True)
    counted = torch.ones_like(tokens, dtype=torch.bool) if without is None else ~torch.isin(tokens, without)
    return Chosen(torch.empty_like(tokens).scatter_(0, which, docs)[counted], (counts == 2)[counted])


def jaccard_of_models(a: Sequence[ITDA], b: Sequence[ITDA]) -> Overlap:
    """Overlap of two models: of all tokens that any of a model's dictionaries chose.

    Raises:
        ValueError: as `jaccard`, or a model has no dictionary.
    """
    if not a or not b:
        raise ValueError("a model has no dictionary: pass at least one each")
    _check_stream([*a, *b])
    # where one stopped at its cap, no more than the first rows were its to choose from
    n_tokens = max(itda.cfg.n_tokens for itda in (*a, *b))
    return _overlap(_labels(a), _labels(b), n_tokens)


def layer_match(models: Sequence[Sequence[ITDA]], exclude_self: bool = True) -> LayerMatch:
    """For every ordered pair of models and every layer, whether the other's most similar layer is that one.

    Args:
        models: for each, its dictionaries by layer.
        exclude_self: leave out pairs of a model with itself, which match by definition; the paper counts them.

    Raises:
        ValueError: as `jaccard`, fewer than two models, or different numbers of layers.
    """
    n_layers = {len(model) for model in models}
    if len(models) < 2 or len(n_layers) != 1 or 0 in n_layers:
        raise ValueError(f"{len(models)} models with {sorted(n_layers)} layers: pass two or more with as many each")
    _check_stream([itda for model in models for itda in model])
    labels = [_labels([itda]) for model in models for itda in model]
    flat = torch.tensor([[_shared(a, b) / _union(a, b) for b in labels] for a in labels], dtype=torch.float64)
    similarity = flat.unflatten(0, (len(models), -1)).unflatten(2, (len(models), -1)).transpose(1, 2)
    return LayerMatch(*matched_layers(similarity, exclude_self), similarity)


def _check_stream(dictionaries: Sequence[ITDA]) -> None:
    streams = {itda.cfg.stream for itda in dictionaries}
    if "" in streams or any((itda.atom_seq == NOT_BUILT).any() for itda in dictionaries):
        raise ValueError("a dictionary does not know what it was built on: compare those that `build` returns")
    if len(streams) > 1:
        raise ValueError(
            f"{len(streams)} different token streams ({', '.join(sorted(stream[:8] for stream in streams))}): "
            "build all from the same tokens, in the same order, all token classes included"
        )


def _labels(dictionaries: Sequence[ITDA]) -> Int[Tensor, " n"]:
    """The tokens that they chose, each once, as one number."""
    return torch.cat([_label(itda) for itda in dictionaries]).unique()


def _label(itda: ITDA) -> Int[Tensor, " d_sae"]:
    """The token of each atom as one number; no two atoms of a dictionary have the same."""
    return (itda.atom_seq << 32 | itda.atom_pos).cpu()


def _left(labels: Tensor, without: Tensor) -> Tensor:
    return labels[~torch.isin(labels, without)]


def _shared(a: Tensor, b: Tensor) -> int:
    return int(torch.isin(a, b, assume_unique=True).sum())


def _union(a: Tensor, b: Tensor) -> int:
    return len(a) + len(b) - _shared(a, b)


def _overlap(a: Tensor, b: Tensor, n_tokens: int) -> Overlap:
    found = _shared(a, b) / _union(a, b)
    by_chance = len(a) * len(b) / n_tokens
    chance = by_chance / (len(a) + len(b) - by_chance)
    return Overlap(found, chance, (found - chance) / (1 - chance) if chance < 1 else None)
