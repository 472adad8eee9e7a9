"""The nearest direction of another dictionary for every latent, beside random directions: no index is needed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae import checkpoint
from sae.decoder_match import nearest, random_alike

MOST_PRODUCTS = 5e10
"""Numbers multiplied for all cosines, d_a × d_b × d_in: some seconds on two cores. Three times that are done."""
QUANTILE = 0.99
"""Of the null's best partners: a pair at or below it counts as unmatched, as in `monosem match`."""


@dataclass(frozen=True)
class Side:
    """Each latent of one dictionary with its nearest of the other."""

    latent: np.ndarray
    """`[n]` those that have a direction and, as far as is known, fire."""
    other: np.ndarray
    """`[n]` the nearest latent of the other dictionary."""
    cosine: np.ndarray
    """`[n]` with it."""
    chance: np.ndarray
    """`[n]` largest cosine where one of the two dictionaries is random."""


@dataclass(frozen=True)
class Nearest:
    """Two dictionaries by the cosines of their decoder rows."""

    a: Side
    b: Side
    threshold: float
    """The null's 99 % quantile over both sides."""


def products(a: Path, b: Path) -> float:
    """How many numbers have to be multiplied for all cosines of the dictionaries in two folders."""
    widths = [checkpoint.describe(folder)["config"] for folder in (a, b)]
    d_in = max(config.get("d_in") or sum(config.get("site_widths", ())) for config in widths)
    return float(widths[0].get("d_sae", 0)) * float(widths[1].get("d_sae", 0)) * d_in


def d_sae(folder: Path) -> int:
    """Latents of the dictionary in a folder."""
    return checkpoint.describe(folder)["config"]["d_sae"]


def nearest_directions(
    a: Path, b: Path, alive_a: np.ndarray | None = None, alive_b: np.ndarray | None = None, seed: int = 0
) -> Nearest:
    """Compare the decoders of the dictionaries in two folders.

    Args:
        a: one checkpoint's folder.
        b: the other's.
        alive_a: which of a's latents fire, where it is known; dead ones keep the directions they began with.
        alive_b: the same of b.
        seed: of the random directions, which have the mean and covariance of b's.

    Raises:
        UsageError: a checkpoint is damaged or missing.
        ValueError: widths differ, or one has no direction at all.
    """
    rows_a, rows_b = (checkpoint.load(folder).W_dec.detach().double() for folder in (a, b))
    if rows_a.shape[1:] != rows_b.shape[1:]:
        raise ValueError(f"decoder rows have {rows_a.shape[1]} and {rows_b.shape[1]} numbers: they are of two spaces")
    latent_a, latent_b = _kept(rows_a, alive_a), _kept(rows_b, alive_b)
    own = nearest(rows_a[latent_a], rows_b[latent_b])
    random = random_alike(rows_b[latent_b], torch.Generator().manual_seed(seed))
    null = nearest(rows_a[latent_a], random)
    chance = torch.cat([null.of_a.cosine, null.of_b.cosine])
    return Nearest(
        Side(latent_a.numpy(), latent_b[own.of_a.other].numpy(), own.of_a.cosine.numpy(), null.of_a.cosine.numpy()),
        Side(latent_b.numpy(), latent_a[own.of_b.other].numpy(), own.of_b.cosine.numpy(), null.of_b.cosine.numpy()),
        float(np.quantile(chance.numpy(), QUANTILE)),
    )


def _kept(rows: Tensor, alive: np.ndarray | None) -> Tensor:
    here = torch.linalg.vector_norm(rows, dim=1) > 0
    if alive is not None:
        here &= torch.from_numpy(alive)
    if not here.any():
        raise ValueError("no latent of one of them fires or has a direction: there is nothing to compare")
    return here.nonzero().squeeze(1)
