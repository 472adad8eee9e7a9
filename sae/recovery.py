"""Whether a dictionary found planted features: matched one to one, and firing where they are present.

    MCC = 1/n max over one-to-one matchings m of Σ_f cos(feature_f, W_dec[m(f)])
    recovered = #{f : cos > 0.9}      F1_f = 2 TP / (2 TP + FP + FN) of "latent m(f) fires" for "feature f is present"

MCC as in Hyvärinen & Morioka 2016, of directions instead of sources. Cosines are signed unless said otherwise: a latent
that can only add must point the right way. A feature for which no latent is left counts as 0 in all three. Unlike the
mean max cosine, a latent between two features counts for one of them.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sae.base import SAE
from sae.geometry import unit_rows
from sae.sparse import SparseLatents
from sae.synthetic import Superposed, mean_max_cosine
from sae.topk import TopK, TopKConfig

RECOVERED = 0.9
"""Cosine above which a feature counts as recovered."""
UNMATCHED = -1
"""The latent of a feature for which none is left."""


class Match(NamedTuple):
    """The one-to-one matching of latents with features of the largest sum of cosines."""

    latents: Int[Tensor, " n_features"]
    """Each feature's latent; `UNMATCHED` where there are fewer latents than features."""
    cosines: Float[Tensor, " n_features"]
    """Its cosine with the feature; 0 where there is none."""

    @property
    def mcc(self) -> float:
        """Mean over all features."""
        return self.cosines.mean().item()

    def n_recovered(self, threshold: float = RECOVERED) -> int:
        """Features whose latent has a larger cosine than this."""
        return int((self.cosines > threshold).sum())


@torch.no_grad()
def match(
    directions: Float[Tensor, "n_latents d"], features: Float[Tensor, "n_features d"], *, absolute: bool = False
) -> Match:
    """Match directions of any norm with features of any norm.

    Args:
        directions: of the latents.
        features: the truth.
        absolute: ignore the sign, for dictionaries whose coefficients may be negative and for principal components.
    """
    cosines = unit_rows(features) @ unit_rows(directions).t()
    cosines = cosines.abs() if absolute else cosines
    rows, columns = linear_sum_assignment(cosines.cpu().numpy(), maximize=True)
    latents = torch.full((len(features),), UNMATCHED)
    latents[torch.from_numpy(rows)] = torch.from_numpy(columns.astype(np.int64))
    found = torch.zeros(len(features), dtype=torch.float64)
    found[rows] = cosines.cpu()[rows, columns]
    return Match(latents, found)


def detection_f1(
    latents: SparseLatents, present: Bool[Tensor, "batch n_features"], latent_of: Int[Tensor, " n_features"]
) -> Float[Tensor, " n_features"]:
    """F1 of each feature's latent firing for the feature being present; 0 without a latent, NaN if never present and
    the latent never fires."""
    fires = torch.zeros(len(present), latents.pattern.d_sae + 1, dtype=torch.bool)
    # the last column, which never fires, stands for no latent
    fires[latents.rows[latents.active], latents.indices[latents.active]] = True
    fires = fires[:, latent_of]
    true_positive = (fires & present).sum(dim=0).double()
    wrong = (fires ^ present).sum(dim=0)
    return 2 * true_positive / (2 * true_positive + wrong)


class Recovery(NamedTuple):
    """What a dictionary found of what was planted."""

    n_features: int
    mcc: float
    mmcs: float
    """Mean over features of the largest cosine with any latent."""
    n_recovered: int
    """Features whose matched latent has a cosine above 0.9."""
    f1: float | None
    """Mean over features that could be told."""
    n_undefined: int
    """Features never present for which nothing fired."""
    l0: float
    """Mean number of active latents per row."""


@torch.no_grad()
def measure_recovery(
    sae: SAE, features: Float[Tensor, "n_features d"], sample: Superposed, *, absolute: bool = False
) -> Recovery:
    """Match the decoder with the features, and look at the sample's rows, which it should not have seen, for F1."""
    directions = sae.W_dec.detach()
    matched = match(directions, features, absolute=absolute)
    latents = sae.encode(sample.x.to(directions.dtype))
    f1 = detection_f1(latents, sample.coefficients > 0, matched.latents)
    told = f1[~f1.isnan()]
    return Recovery(
        n_features=len(features),
        mcc=matched.mcc,
        mmcs=mean_max_cosine(torch.cat([directions, -directions]) if absolute else directions, features),
        n_recovered=matched.n_recovered(),
        f1=told.mean().item() if len(told) else None,
        n_undefined=len(f1) - len(told),
        l0=latents.l0().item(),
    )


@torch.no_grad()
def read_by_projection(directions: Float[Tensor, "n_latents d"], centre: Float[Tensor, " d"], k: int) -> TopK:
    """Any directions as an SAE: a row's latents are its k largest positive projections, less the centre, on them. How
    dictionaries that have no encoder, the controls, are read."""
    n_latents, d = directions.shape
    sae = TopK(TopKConfig(d_in=d, d_sae=n_latents, k=max(1, min(k, n_latents)))).to(directions.dtype)
    sae.W_dec.copy_(unit_rows(directions))
    sae.W_enc.copy_(sae.W_dec.t())
    sae.b_dec.copy_(centre)
    return sae
