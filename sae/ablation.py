"""Ablating latents in pooled activations, and the dictionaries that stand beside the one that is measured.

Pooling and decoding are linear: taking latents S out of every token and averaging is taking their average contribution
out of the average, x − Σ_{i∈S} a_i · W_dec[i] with x and a averaged over tokens. So is a probe, so its score only loses
Σ_{i∈S} a_i · (W_dec[i] · w). Nothing has to be encoded or run again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sae.probes import Probe, Values
from sae.probing import PooledTexts, mean_difference, text_counts

N_NEAREST = 20
"""Latents of about the same frequency that a random one is drawn from."""
ABLATION_CONTROLS = ("random_latents", "pca", "random_basis")


@dataclass(frozen=True)
class Dictionary:
    """Directions in activation space, and how much of each a text has."""

    name: str
    directions: Float[np.ndarray, "d d_in"]
    centre: Float[np.ndarray, " d_in"] | None
    """Of a basis: a text has (x − centre) · direction. None for the SAE, whose latents are given."""
    signed: bool = True
    """Whether a value below 0 carries something too: of a basis always, of latents where they have signs."""

    def values(self, texts: PooledTexts) -> Values:
        """`[n_texts, d]`"""
        return texts.latents if self.centre is None else (texts.x - self.centre) @ self.directions.T


@dataclass(frozen=True)
class Ranking:
    """For each draw and each class, directions of a dictionary in the order in which they are ablated."""

    arm: str
    dictionary: Dictionary
    draws: tuple[tuple[Int[np.ndarray, " _"], ...], ...]

    def n_ablated(self, n: int) -> float:
        """How many are ablated where `n` are asked for, mean over draws and classes."""
        return float(np.mean([min(n, len(order)) for draw in self.draws for order in draw]))


def dictionaries(
    train: PooledTexts, W_dec: Float[np.ndarray, "d_sae d_in"], seed: int, *, signed: bool = False
) -> tuple[Dictionary, ...]:
    """The SAE, the principal components of the training texts, and a random orthonormal basis."""
    centre = train.x.mean(axis=0, dtype=float)
    components = np.linalg.svd(train.x - centre, full_matrices=False)[2]
    noise = np.random.default_rng(seed).standard_normal((W_dec.shape[1], W_dec.shape[1]))
    return (
        Dictionary("sae", np.asarray(W_dec, float), None, signed),
        Dictionary("pca", components, centre),
        Dictionary("random_basis", np.linalg.qr(noise)[0].T, centre),
    )


def attribution(
    dictionary: Dictionary, values: Values, wanted: np.ndarray, weight: Float[np.ndarray, " d_in"], *, either_way: bool
) -> Float[np.ndarray, " d"]:
    """(mean over the class − mean over the rest) · (direction · probe): what each direction adds to the class's score.

    Args:
        dictionary: its directions.
        values: of the training texts.
        wanted: which of them are of the class.
        weight: of the class's probe.
        either_way: whether size alone counts. If not, latents without signs count only where the class has more of
            them; with signs, and in a basis, less of one that speaks against the class speaks for it.
    """
    difference = mean_difference(values, wanted)
    if not either_way and not dictionary.signed:
        difference = np.maximum(difference, 0)
    effect = difference * (dictionary.directions @ weight)
    return np.abs(effect) if either_way else effect


def rankings(
    train: PooledTexts,
    W_dec: Float[np.ndarray, "d_sae d_in"],
    wanted: np.ndarray,
    weights: Float[np.ndarray, "n_classes d_in"],
    n_max: int,
    seed: int,
    n_draws: int,
    *,
    either_way: bool = False,
    signed: bool = False,
) -> tuple[Ranking, ...]:
    """The SAE's latents by attribution for each class, and the controls; from training texts only.

    Args:
        train: training texts.
        W_dec: decoder rows.
        wanted: `[n_texts, n_classes]` boolean.
        weights: of each class's probe.
        n_max: how many are ranked; fewer where fewer have an effect.
        seed: of the random controls.
        n_draws: of the random latents.
        either_way: as for `attribution`.
        signed: whether the SAE's latents have signs.
    """
    out: list[Ranking] = []
    for dictionary in dictionaries(train, W_dec, seed, signed=signed):
        values, orders = dictionary.values(train), []
        for each, weight in zip(wanted.T, weights, strict=True):
            effect = attribution(dictionary, values, each, weight, either_way=either_way)
            order = np.argsort(-effect, kind="stable")[:n_max]
            orders.append(order[effect[order] > 0])
        out.append(Ranking(dictionary.name, dictionary, (tuple(orders),)))
    ours = out[0]
    draws = [_matched(train.latents, ours.draws[0], np.random.default_rng([seed, i])) for i in range(n_draws)]
    return (ours, Ranking("random_latents", ours.dictionary, tuple(draws)), *out[1:])


def ablated_scores(
    probes: Sequence[Probe], scores: np.ndarray, directions: np.ndarray, values: Values, ablated: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n_texts n_probes"]:
    """The probes' scores once the directions `ablated` are out.

    Args:
        probes: of activations, every dimension of them.
        scores: `[n_texts, n_probes]` before.
        directions: `[d, d_in]`
        values: `[n_texts, d]`
        ablated: which directions.
    """
    weights = np.stack([probe.weight for probe in probes])
    return scores - np.asarray(values[:, ablated] @ (directions[ablated] @ weights.T))


def _matched(
    latents: sparse.csr_array, chosen: tuple[np.ndarray, ...], random: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """For each class's latents, as many others that are active in about as many texts, while there are any left."""
    counts = text_counts(latents)
    return tuple(_partners(counts, np.flatnonzero(counts), each, random) for each in chosen)


def _partners(counts: np.ndarray, live: np.ndarray, chosen: np.ndarray, random: np.random.Generator) -> np.ndarray:
    free = set(live.tolist()) - set(chosen.tolist())
    out: list[int] = []
    for latent in chosen:
        pool = np.array(sorted(free))
        if len(pool) == 0:
            break
        near = pool[np.argsort(np.abs(counts[pool] - counts[latent]), kind="stable")[:N_NEAREST]]
        out.append(int(random.choice(near)))
        free.remove(out[-1])
    return np.array(out, int)
