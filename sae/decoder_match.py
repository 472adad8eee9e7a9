"""Whether two dictionaries of one hook point hold the same directions: cosines of decoder rows, and one-to-one pairs.

    best_a = mean_i max_j cos(a_i, b_j), best_b the other way round; one to one: the pairing π that maximises
    Σ_i cos(a_i, b_π(i)), by the Hungarian algorithm

Two SAEs that differ in their seed alone share only some of their latents: Paulo & Belrose 2025, arXiv:2501.16615, who
count a latent as shared where its partner's cosine is at least .7. In few dimensions, or where all rows lean the same
way, random directions find partners too: `geometry.random_like` and `random_alike` are the controls.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

PARTNER_COS = 0.7
"""From here on two latents are partners: Paulo & Belrose 2025."""
BLOCK_ROWS = 1024
"""Rows of one dictionary that are compared with all of the other at once."""


class OneToOne(NamedTuple):
    """The best pairing in which every latent of the smaller dictionary has a partner of its own."""

    n_pairs: int
    mean: float
    """Mean cosine."""
    share: float
    """Of the pairs, how many reach `partner_cos`."""


class DecoderMatch(NamedTuple):
    """How the decoder rows of two dictionaries meet; rows of zeros, which have no direction, are left out."""

    n_a: int
    n_b: int
    mean_best_a: float
    """Mean over the first one's latents of the largest cosine with any of the second's."""
    mean_best_b: float
    """The other way round."""
    share_a: float
    """Of the first one's latents, how many have a cosine of at least `partner_cos` with any of the second's."""
    share_b: float
    """The other way round."""
    one_to_one: OneToOne | None
    """None where it was not asked for."""


class Partners(NamedTuple):
    """The nearest row of the other dictionary, for each of one's rows."""

    cosine: Float[Tensor, " n"]
    other: Int[Tensor, " n"]
    """Its number; the lowest of several."""


class BothPartners(NamedTuple):
    """Nearest rows in both directions."""

    of_a: Partners
    of_b: Partners


def nearest(a: Float[Tensor, "n_a d_in"], b: Float[Tensor, "n_b d_in"]) -> BothPartners:
    """For each row the one of the other dictionary with the largest signed cosine; no row may be all zeros."""
    a, b = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)
    best_b = Partners(torch.full((len(b),), -torch.inf, dtype=torch.float64), torch.zeros(len(b), dtype=torch.int64))
    of_a = []
    for first, some in zip(range(0, len(a), BLOCK_ROWS), a.split(BLOCK_ROWS), strict=True):
        cosines = some @ b.t()
        of_a.append(cosines.max(dim=1))
        cosine, row = cosines.max(dim=0)
        nearer = cosine > best_b.cosine
        best_b = Partners(torch.where(nearer, cosine, best_b.cosine), torch.where(nearer, row + first, best_b.other))
    return BothPartners(
        Partners(torch.cat([one.values for one in of_a]), torch.cat([one.indices for one in of_a])), best_b
    )


def match_decoders(
    a: Float[Tensor, "n_a d_in"],
    b: Float[Tensor, "n_b d_in"],
    partner_cos: float = PARTNER_COS,
    one_to_one: bool = True,
) -> DecoderMatch:
    """Compare by signed cosines.

    Args:
        a: decoder rows of one dictionary, of any norm.
        b: of the other.
        partner_cos: what counts as a partner.
        one_to_one: whether to pair them too, which takes a time that grows with the cube of their number.

    Raises:
        ValueError: one has no direction at all.
    """
    a, b = _directions(a), _directions(b)
    best_b = torch.full((len(b),), -torch.inf, dtype=torch.float64)
    best_a, kept = [], []
    for some in a.split(BLOCK_ROWS):
        cosines = some @ b.t()
        best_a.append(cosines.amax(dim=1))
        best_b = torch.maximum(best_b, cosines.amax(dim=0))
        if one_to_one:
            kept.append(cosines)
    of_a = torch.cat(best_a)
    return DecoderMatch(
        n_a=len(a),
        n_b=len(b),
        mean_best_a=of_a.mean().item(),
        mean_best_b=best_b.mean().item(),
        share_a=_share(of_a, partner_cos),
        share_b=_share(best_b, partner_cos),
        one_to_one=_paired(torch.cat(kept), partner_cos) if one_to_one else None,
    )


def random_alike(b: Float[Tensor, "n d_in"], generator: torch.Generator) -> Float[Tensor, "n d_in"]:
    """As many directions drawn from the normal distribution with the mean and covariance of `b`'s own directions.

    Raises:
        ValueError: `b` has no direction at all.
    """
    directions = _directions(b)
    mean = directions.mean(dim=0)
    _, size, right = torch.linalg.svd(directions - mean, full_matrices=False)
    drawn = torch.randn(len(b), len(size), generator=generator, dtype=torch.float64)
    return F.normalize(mean + drawn @ (size.unsqueeze(1) * right) / len(directions) ** 0.5, dim=1)


def repeated(rows: Float[Tensor, "n d_in"], cosine: float) -> Bool[Tensor, " n"]:
    """Which rows have the direction of one before them, up to the sign: |cosine| of at least this."""
    directions = F.normalize(rows.detach().double(), dim=1)
    found = []
    for start in range(0, len(rows), BLOCK_ROWS):
        here = directions[start : start + BLOCK_ROWS]
        before = (here @ directions[: start + len(here)].t()).abs_() >= cosine
        found.append(before.tril_(start - 1).any(dim=1))
    return torch.cat(found)


def _paired(cosines: Float[Tensor, "n_a n_b"], partner_cos: float) -> OneToOne:
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    found = cosines[torch.from_numpy(rows), torch.from_numpy(columns)]
    return OneToOne(len(found), found.mean().item(), _share(found, partner_cos))


def _share(cosines: Tensor, partner_cos: float) -> float:
    return (cosines >= partner_cos).double().mean().item()


def _directions(rows: Tensor) -> Tensor:
    rows = rows.detach().double().cpu()
    rows = rows[torch.linalg.vector_norm(rows, dim=1) > 0]
    if not len(rows):
        raise ValueError("all decoder rows are zero: train the dictionary before it is compared")
    return F.normalize(rows, dim=1)
