"""How alike two sets of activations are, row i of both being the same token, whatever their widths; all in float64.

    CKA    = HSIC(X, Y) / sqrt(HSIC(X, X) · HSIC(Y, Y)) with linear kernels: Kornblith et al. 2019, arXiv:1905.00414;
             HSIC with its bias, ‖XᵀY‖² of centred rows, or without, Song et al. 2012, JMLR 13, equation 5
    SVCCA  = mean canonical correlation of the directions that hold .99 of each side's variance: Raghu et al. 2017,
             arXiv:1706.05806
    relative = mean cosine of a token's cosines with the same anchors: Moschella et al. 2023, arXiv:2209.15430
    R²     = 1 − Σ‖y − ŷ‖² / Σ‖y − mean y‖² of ŷ = x W + b by least squares, on rows that were not fitted

Each says something only beside its null: the same measure after `shuffled` has torn the pairs apart. What leaves them
as they are: orthogonal maps and one scale of either side, all of them; an invertible map of x, R²; one of either side,
SVCCA, but only where the same directions are kept, so in general at `variance_kept=1` alone.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

ROWS_PER_DIMENSION = 2
"""Fewer rows than this times the width are refused: of n < d_x + d_y rows, independent ones correlate perfectly."""
FEWEST_DEBIASED = 4
"""Rows below which HSIC has no unbiased estimate."""


class StreamingHSIC:
    """The Hilbert–Schmidt independence criterion of paired rows with linear kernels, from sums over rows."""

    def __init__(self) -> None:
        self.n_rows = 0
        self._shifts: tuple[Tensor, Tensor] | None = None
        self._sums: list[Tensor] = []

    def update(self, x: Float[Tensor, "batch d_x"], y: Float[Tensor, "batch d_y"]) -> None:
        """Add rows.

        Raises:
            ValueError: other numbers of rows.
        """
        _check_paired(x, y)
        if not len(x):
            return
        x, y = x.double(), y.double()
        if self._shifts is None:
            # no estimate depends on a shift, and near the mean nothing large cancels
            self._shifts = x.mean(dim=0), y.mean(dim=0)
        x, y = x - self._shifts[0], y - self._shifts[1]
        x_size, y_size = x.square().sum(dim=1), y.square().sum(dim=1)
        sums = [x.t() @ y, x.sum(0), y.sum(0), y_size @ x, x_size @ y, x_size @ y_size, x_size.sum(), y_size.sum()]
        self._sums = [old + new for old, new in zip(self._sums, sums, strict=True)] if self._sums else sums
        self.n_rows += len(x)

    def biased(self) -> float | None:
        """‖XᵀY‖² of centred rows; None before any row."""
        if not self.n_rows:
            return None
        product, x_sum, y_sum = self._sums[:3]
        return (product - torch.outer(x_sum, y_sum) / self.n_rows).square().sum().item()

    def debiased(self) -> float | None:
        """Song et al.'s unbiased estimate times n (n − 3): 0 on average of independent rows; None below four rows."""
        n = self.n_rows
        if n < FEWEST_DEBIASED:
            return None
        product, x_sum, y_sum, x_by_y, y_by_x, both, x_all, y_all = self._sums
        # K and L are the Gram matrices with zeros on their diagonals
        trace = product.square().sum() - both
        sums = (x_sum.square().sum() - x_all) * (y_sum.square().sum() - y_all)
        through = x_sum @ product @ y_sum - x_sum @ x_by_y - y_sum @ y_by_x + both
        return (trace + sums / ((n - 1) * (n - 2)) - 2 / (n - 2) * through).item()


class CKA(NamedTuple):
    """Centred kernel alignment with linear kernels."""

    biased: float | None
    """From 0 to 1; above 0 for independent rows, more so the wider the rows and the fewer they are."""
    debiased: float | None
    """0 on average for independent rows; None below four rows."""


class StreamingCKA:
    """CKA over all rows seen; None where a side does not vary."""

    def __init__(self) -> None:
        self._x, self._y, self._both = StreamingHSIC(), StreamingHSIC(), StreamingHSIC()
        self._torn = StreamingHSIC()

    def update(
        self,
        x: Float[Tensor, "batch d_x"],
        y: Float[Tensor, "batch d_y"],
        torn: Float[Tensor, "batch d_y"] | None = None,
    ) -> None:
        """Add rows; `torn` are rows of y that are paired with x at random, each once over all batches."""
        self._x.update(x, x)
        self._y.update(y, y)
        self._both.update(x, y)
        if torn is not None:
            self._torn.update(x, torn)

    def value(self) -> CKA:
        """Of x and y."""
        return self._aligned(self._both)

    def null(self) -> CKA:
        """Of x and `torn`: what is left where no pair belongs together."""
        return self._aligned(self._torn)

    def _aligned(self, both: StreamingHSIC) -> CKA:
        return CKA(
            _normalised(both.biased(), self._x.biased(), self._y.biased()),
            _normalised(both.debiased(), self._x.debiased(), self._y.debiased()),
        )


def _normalised(both: float | None, x: float | None, y: float | None) -> float | None:
    if both is None or x is None or y is None or x <= 0 or y <= 0:
        return None
    return both / (x**0.5 * y**0.5)


def linear_cka(x: Float[Tensor, "n d_x"], y: Float[Tensor, "n d_y"]) -> CKA:
    """CKA of rows that are all there; `StreamingCKA` for batches.

    Raises:
        ValueError: other numbers of rows.
    """
    cka = StreamingCKA()
    cka.update(x, y)
    return cka.value()


def kept_directions(x: Float[Tensor, "n d_in"], variance_kept: float = 0.99) -> Float[Tensor, "n kept"]:
    """Orthonormal columns: the fewest principal components of the centred rows that hold this share of their variance.

    Raises:
        ValueError: fewer than 2 · d_in rows, or a share outside 0 < variance_kept <= 1.
    """
    if not 0 < variance_kept <= 1:
        raise ValueError(f"variance_kept={variance_kept} is no share: choose 0 < variance_kept <= 1")
    _check_enough(x)
    rows = _centred(x)
    variance, axes = _principal(rows)
    held = variance.cumsum(0) / variance.sum()
    n_kept = min(len(variance), 1 + int((held < variance_kept).sum()))
    return rows @ axes[:, :n_kept] / variance[:n_kept].sqrt()


def canonical_correlations(
    x_directions: Float[Tensor, "n kept_x"], y_directions: Float[Tensor, "n kept_y"]
) -> Float[Tensor, " fewer"]:
    """Canonical correlations of two sets of `kept_directions`, largest first: as many as the smaller set has.

    Of independent rows, their squares are max(kept) / (n − 1) on average.
    """
    return torch.linalg.svdvals(x_directions.t() @ y_directions).clamp_(max=1)


def svcca(x: Float[Tensor, "n d_x"], y: Float[Tensor, "n d_y"], variance_kept: float = 0.99) -> float | None:
    """Mean canonical correlation; None where a side does not vary.

    Raises:
        ValueError: as `kept_directions`, or other numbers of rows.
    """
    _check_paired(x, y)
    found = canonical_correlations(kept_directions(x, variance_kept), kept_directions(y, variance_kept))
    return found.mean().item() if len(found) else None


def relative(x: Float[Tensor, "n d_in"], anchors: Float[Tensor, "n_anchors d_in"]) -> Float[Tensor, "n n_anchors"]:
    """Cosine of every row with every anchor; 0 where either is zero."""
    return F.normalize(x.double(), dim=1) @ F.normalize(anchors.double(), dim=1).t()


def relative_similarity(
    x: Float[Tensor, "n d_x"], y: Float[Tensor, "n d_y"], anchors: Int[Tensor, " n_anchors"]
) -> float | None:
    """Mean cosine of a row's relative representation on one side with that on the other.

    Cosines are not centred, so that rows with a common mean are alike without being pairs: see the null.

    Args:
        x: one side.
        y: the other.
        anchors: numbers of the rows that all others are compared with; they are left out of the mean.

    Returns:
        None where there are no other rows, or none with a direction on both sides.

    Raises:
        ValueError: other numbers of rows.
    """
    _check_paired(x, y)
    rest = torch.ones(len(x), dtype=torch.bool)
    rest[anchors] = False
    one, two = (relative(side[rest], side[anchors]) for side in (x, y))
    cosine = torch.linalg.vecdot(one, two) / (one.norm(dim=1) * two.norm(dim=1))
    cosine = cosine[cosine.isfinite()]
    return cosine.mean().item() if len(cosine) else None


class LinearMap(NamedTuple):
    """ŷ = (x − x_mean) · weight + y_mean."""

    weight: Float[Tensor, "d_x d_y"]
    x_mean: Float[Tensor, " d_x"]
    y_mean: Float[Tensor, " d_y"]

    def r2(self, x: Float[Tensor, "n d_x"], y: Float[Tensor, "n d_y"]) -> float | None:
        """1 − FVU of y; below 0 where the mean of these rows predicts better, None where they are all equal.

        Raises:
            ValueError: other numbers of rows.
        """
        _check_paired(x, y)
        y = y.double()
        error = (y - self.y_mean - (x.double() - self.x_mean) @ self.weight).square().sum()
        total = _centred(y).square().sum()
        return 1 - (error / total).item() if total > 0 else None


def fit_linear(x: Float[Tensor, "n d_x"], y: Float[Tensor, "n d_y"]) -> LinearMap:
    """Least squares without a penalty; where columns of x are dependent, the smallest such weights.

    Raises:
        ValueError: fewer than 2 · d_x rows, or other numbers of rows.
    """
    _check_paired(x, y)
    _check_enough(x)
    x, y = x.double(), y.double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    rows = x - x_mean
    variance, axes = _principal(rows)
    weight = axes @ (axes.t() @ (rows.t() @ (y - y_mean)) / variance.unsqueeze(1))
    return LinearMap(weight, x_mean, y_mean)


def shuffled(y: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "n d"]:
    """The same rows in a random order: the null of any measure of pairs."""
    return y[torch.randperm(len(y), generator=generator).to(y.device)]


def enough_rows(d_in: int) -> int:
    """Rows that `kept_directions` and `fit_linear` need of this width."""
    return ROWS_PER_DIMENSION * d_in


class Matched(NamedTuple):
    """Whether a layer of one model is most like the same layer of another."""

    accuracy: float
    """Share of (model, other model, layer) whose best match is that layer, and no other one as good; by chance 1 over
    the number of layers."""
    n_judged: int
    """How many there were."""


def matched_layers(similarity: Float[Tensor, "model other layer other_layer"], exclude_self: bool = True) -> Matched:
    """How often a layer's most similar layer of another model is that layer.

    Args:
        similarity: of every layer of every model with every layer of every other.
        exclude_self: leave out a model with itself, which matches by definition; its entries are then not looked at.
    """
    n_models = len(similarity)
    same = similarity.diagonal(dim1=2, dim2=3)
    n_as_good = (similarity >= same.unsqueeze(3)).sum(dim=3)
    judged: Bool[Tensor, "model other"] = torch.ones(n_models, n_models, dtype=torch.bool)
    matched = (n_as_good == 1)[judged.fill_diagonal_(not exclude_self)]
    return Matched(matched.double().mean().item(), matched.numel())


def _principal(rows: Float[Tensor, "n d_in"]) -> tuple[Float[Tensor, " kept"], Float[Tensor, "d_in kept"]]:
    """Sums of squares along the principal axes of centred rows, largest first, and the axes; those along which the
    rows do not vary but for rounding are left out.

    By the Gram matrix, since 20,000 rows of 576 took 35 s by singular values and 2 s so; in float64 it tells directions
    apart from rounding down to about 1e-6 of the largest spread.
    """
    variance, axes = torch.linalg.eigh(rows.t() @ rows)
    variance, axes = variance.flip(0), axes.flip(1)
    n_real = int((variance > variance[0] * max(rows.shape) * torch.finfo(rows.dtype).eps).sum())
    return variance[:n_real], axes[:, :n_real]


def _centred(x: Tensor) -> Tensor:
    x = x.double()
    return x - x.mean(dim=0)


def _check_paired(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y):
        raise ValueError(f"{len(x)} rows on one side, {len(y)} on the other: pass the same tokens on both")


def _check_enough(x: Tensor) -> None:
    if len(x) < enough_rows(x.shape[1]):
        raise ValueError(
            f"{len(x)} rows of width {x.shape[1]}: at least {enough_rows(x.shape[1])} are needed, since fewer fit "
            "anything; read more of the text"
        )
