"""How far apart atoms lie under an inner product, and what that says of telling sparse sums of them apart.

    ⟨u, v⟩ = uᵀ M⁻¹ v, M = E[x xᵀ]      μ = max over i ≠ j of |cos(d_i, d_j)|      δ_K ≤ (K − 1) μ
    a sum of K atoms can be made in one way only, and is found by OMP and by l1, if μ < 1 / (2K − 1)
    q* = sup{q : μ_q < 1 / (2 K_q − 1)}, of the quantiles of |cos| over pairs and of L0 over rows

The atomic inner product M⁻¹ and q*: Hu et al. 2025, arXiv:2509.20784; the bounds: Tropp 2004, "Greed is good".
Whitening by M makes almost any spread-out set of directions nearly orthogonal, and random directions reach
q* = 2Φ(√d / (2K − 1)) − 1 by themselves, .9998 at K = 2 and d = 128: no q* means anything without its L0 and the random
control beside it. Rows whose norm is that of an attention sink decide M alone: leave them out.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor

from sae.geometry import cosine_blocks, unit_rows
from sae.pursuit import omp

RIDGE = 1e-6
"""Of the mean eigenvalue, added to all: dimensions that nothing varies in would count for everything. Our addition."""
EXACT_PAIRS = 2**21
"""Up to so many pairs, those of 2,048 atoms, all are kept."""
SAMPLED_PAIRS = 2**20
"""Of more than that so many are drawn: the standard error of a share is at most 0.0005."""

InnerProduct = Callable[[Tensor], Tensor]
"""From vectors, as rows, to vectors whose Euclidean inner products are the wanted ones."""


class StreamingMoment:
    """E[x xᵀ] over all rows seen, about zero or about the mean, in float64; merged as in Chan, Golub & LeVeque 1979."""

    def __init__(self, d: int) -> None:
        self.n_rows = 0
        self.mean: Float[Tensor, " d"] = torch.zeros(d, dtype=torch.float64)
        self._scatter = torch.zeros(d, d, dtype=torch.float64)

    def update(self, x: Float[Tensor, "batch d"]) -> None:
        """Add rows."""
        if not len(x):
            return
        rows = x.detach().double().to(self.mean.device)
        mean = rows.mean(dim=0)
        shift, n_both = mean - self.mean, self.n_rows + len(rows)
        rows = rows - mean
        self._scatter += rows.t() @ rows + torch.outer(shift, shift) * (self.n_rows * len(rows) / n_both)
        self.mean = self.mean + shift * (len(rows) / n_both)
        self.n_rows = n_both

    def value(self, *, centred: bool = False, ridge: float = RIDGE) -> Float[Tensor, "d d"]:
        """E[x xᵀ], or the covariance, with `ridge` times its mean eigenvalue added to the diagonal.

        Raises:
            ValueError: no row was seen, or ridge < 0.
        """
        if not self.n_rows:
            raise ValueError("no row was seen: choose other token classes, or harvest more text")
        if ridge < 0:
            raise ValueError(f"ridge={ridge} is negative: choose ridge >= 0")
        moment = self._scatter / self.n_rows
        if not centred:
            moment = moment + torch.outer(self.mean, self.mean)
        return moment + ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)


def gram(
    batches: Iterable[Float[Tensor, "_ d"]], *, centred: bool = False, ridge: float = RIDGE
) -> Float[Tensor, "d d"]:
    """E[x xᵀ] over all rows of `batches`, in one pass; see `StreamingMoment.value`."""
    moment: StreamingMoment | None = None
    for x in batches:
        moment = moment or StreamingMoment(x.shape[1])
        moment.update(x)
    return (moment or StreamingMoment(0)).value(centred=centred, ridge=ridge)


def whitener(moment: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """M^(−1/2), symmetric.

    Raises:
        ValueError: M is not positive definite.
    """
    values, vectors = torch.linalg.eigh(moment.double())
    if not values[0] > len(values) * torch.finfo(torch.float64).eps * values[-1]:
        raise ValueError(
            f"the moment has eigenvalues from {values[0].item():.3g} to {values[-1].item():.3g} and no inverse: "
            "choose ridge > 0, or more rows than dimensions"
        )
    return (vectors * values.rsqrt()) @ vectors.t()


def euclidean(atoms: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """As they are."""
    return atoms


def mean_centred(atoms: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The atoms at norm 1 less their mean: what is left of their angles without a direction that all share."""
    rows = unit_rows(atoms)
    return rows - rows.mean(dim=0)


def atomic(moment: Float[Tensor, "d d"]) -> InnerProduct:
    """uᵀ M⁻¹ v."""
    root = whitener(moment)
    return lambda atoms: atoms.double() @ root


class Coherence(NamedTuple):
    """The cosines between different atoms."""

    cosines: Float[Tensor, " n"]
    """Signed: of all pairs, or of a sample of them."""
    sizes: Float[Tensor, " n"]
    """|cosines|, rising; the last one is `maximum`."""
    maximum: float
    """The largest |cosine| of all pairs, always exact."""
    n_pairs: int
    """Pairs there are."""

    @property
    def is_exact(self) -> bool:
        """Whether `cosines` has all pairs."""
        return len(self.cosines) == self.n_pairs

    def quantile(self, q: float) -> float:
        """The smallest |cosine| that a share q of all pairs does not exceed; at q = 1 the maximum."""
        return _quantile(self.sizes, q)

    def share_below(self, bound: float) -> float:
        """Share of pairs whose |cosine| is below `bound`; 1 only if all are."""
        return torch.searchsorted(self.sizes, bound).item() / len(self.sizes)

    def angles(self) -> tuple[float, float]:
        """Mean and standard deviation of the angles between atoms, in degrees."""
        angles = self.cosines.double().clamp(-1, 1).arccos().rad2deg()
        return angles.mean().item(), angles.std(correction=0).item()


@torch.no_grad()
def coherence(atoms: Float[Tensor, "n d"], product: InnerProduct = euclidean, seed: int = 0) -> Coherence:
    """The cosines between atoms under an inner product: of all pairs, or where there are many of pairs drawn by `seed`.

    Raises:
        ValueError: fewer than two atoms, or one that is zero under the inner product.
    """
    if len(atoms) < 2:
        raise ValueError(f"{len(atoms)} atoms have no pairs: pass at least 2")
    rows = unit_rows(product(atoms))
    if (rows == 0).all(dim=1).any():
        raise ValueError("an atom is zero and has no angle: leave it out")
    n_pairs = len(rows) * (len(rows) - 1) // 2
    drawn = None if n_pairs <= EXACT_PAIRS else _draw_pairs(len(rows), seed)
    parts, tops = [], []
    for start, block in cosine_blocks(rows):
        parts.append(_upper(block, start) if drawn is None else _drawn(block, start, drawn))
        tops.append(_largest_pair(block, start))
    first, second = max(tops, key=lambda top: top[0])[1:]
    maximum = abs(torch.dot(rows[first], rows[second]).item())
    cosines = torch.cat(parts)
    sizes = cosines.double().abs().clamp_max(maximum).sort().values
    sizes[-1] = maximum
    return Coherence(cosines, sizes, maximum, n_pairs)


def rip_bound(k: float, mu: float) -> float:
    """(K − 1) μ, which the restricted isometry constant δ_K does not exceed: from 1 on it says nothing."""
    return (k - 1) * mu


def uniqueness_bound(k: float) -> float:
    """1 / (2K − 1): the coherence below which sums of K atoms are unique; no bound where there is no atom."""
    return 1 / (2 * k - 1) if k > 0.5 else math.inf


class Uniqueness(NamedTuple):
    """For which share of pairs and rows together sparse sums are unique, and at which L0."""

    q_star: float
    """sup{q : μ_q < 1 / (2 K_q − 1)}."""
    l0_at_q_star: float
    """K at q*."""
    l0_median: float
    mu: tuple[float, ...]
    """μ_q at each q asked for."""
    bound: tuple[float, ...]
    """1 / (2 K_q − 1) at each."""


def uniqueness(found: Coherence, l0: Real[Tensor, " rows"], quantiles: Sequence[float] = ()) -> Uniqueness:
    """q* of the coherence of some atoms and the L0 of rows that are coded with them, exact for the pairs there are.

    As μ_q rises and the bound falls, q* = max over K of min(share of rows with L0 ≤ K, share of pairs below 1/(2K−1)).

    Raises:
        ValueError: there are no rows.
    """
    if not len(l0):
        raise ValueError("no row has an L0: pass at least one")
    l0 = l0.double().sort().values
    sizes, counts = l0.unique_consecutive(return_counts=True)
    shares = (counts.cumsum(0) / len(l0)).tolist()
    pairs = zip(sizes.tolist(), shares, strict=True)
    q_star = max(min(share, found.share_below(uniqueness_bound(k))) for k, share in pairs)
    return Uniqueness(
        q_star=q_star,
        l0_at_q_star=_quantile(l0, q_star),
        l0_median=_quantile(l0, 0.5),
        mu=tuple(found.quantile(q) for q in quantiles),
        bound=tuple(uniqueness_bound(_quantile(l0, q)) for q in quantiles),
    )


@torch.no_grad()
def sparse_errors(
    x: Float[Tensor, "n d"], atoms: Float[Tensor, "m d"], k: int, centre: Float[Tensor, " d"]
) -> Float[Tensor, " n"]:
    """‖x − x_hat‖² of each row for x_hat = centre + at most k atoms with any coefficients, chosen by OMP.

    Over Σ‖x − mean(x)‖² and taken from 1, their sum is the sparse reconstruction rate: the share of the variance that
    at most k atoms a row explain. OMP is the same for every dictionary, whatever its own encoder; it does not find the
    best k atoms, so that the rate is a lower bound.
    """
    rows, units = (x - centre).float(), unit_rows(atoms).float()
    rebuilt = omp(rows, units, k).decode(units)
    return (rows.double() - rebuilt.double()).square().sum(dim=1)


def _quantile(rising: Tensor, q: float) -> float:
    """The smallest value that at least a share q of all do not exceed."""
    # less a little: a share of whole counts must not be rounded up to the next count
    place = math.ceil(q * len(rising) - 1e-6)
    return rising[min(max(place, 1), len(rising)) - 1].item()


def _draw_pairs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs of different numbers below n, the first rising."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(n, (SAMPLED_PAIRS,), generator=generator).sort().values
    second = torch.randint(n - 1, (SAMPLED_PAIRS,), generator=generator)
    return first, second + (second >= first)


def _drawn(block: Tensor, start: int, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """The cosines of drawn pairs whose first atom is in the block."""
    first, second = pairs
    low, high = torch.searchsorted(first, torch.tensor([start, start + len(block)])).tolist()
    return block[first[low:high] - start, second[low:high]]


def _upper(block: Tensor, start: int) -> Tensor:
    """The cosines of the block's atoms with all later ones."""
    later = torch.ones_like(block, dtype=torch.bool).triu_(start + 1)
    return block[later]


def _largest_pair(block: Tensor, start: int) -> tuple[float, int, int]:
    """The largest |cosine| in a block, which is overwritten, and whose it is."""
    own = torch.arange(len(block))
    sizes = block.abs_()
    sizes[own, own + start] = -1.0
    best, columns = sizes.max(dim=1)
    row = int(best.argmax())
    return best[row].item(), row + start, int(columns[row])
