"""Each metric once, streaming, in float64: FVU = Σ‖x − x_hat‖² / Σ‖x − mean(x)‖² with one mean over all rows.

Other libraries' "explained variance" differ: some remove the mean error first (a constant offset is then free), some
average a ratio per row, some centre on one scalar. Here an offset costs what it costs, and every row weighs as much as
its variance. "Could not tell" is None. Chunks merge as in Chan, Golub & LeVeque 1979: E[x²] − E[x]² cancels.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.base import SAE, SAEOutput
from sae.codes import Coded, count_codes
from sae.sparse import SparseLatents

DENSE_DENSITY = 0.1
"""Latents that fire on a larger share of tokens than this are dense."""


class StreamingFVU:
    """Fraction of variance unexplained over all rows seen."""

    def __init__(self) -> None:
        self.n_rows = 0
        self.residual = 0.0
        """Σ‖x − x_hat‖²."""
        self.total = 0.0
        """Σ‖x − mean(x)‖²."""
        self._mean: Tensor | None = None

    def update(self, x: Float[Tensor, "batch d_out"], x_hat: Float[Tensor, "batch d_out"]) -> None:
        """Add rows."""
        if len(x) == 0:
            return
        rows = x.detach().double()
        mean = rows.mean(dim=0)
        residual = (rows - x_hat.detach().double()).square().sum().item()
        self._merge(len(rows), mean, (rows - mean).square().sum().item(), residual)

    def merge(self, other: "StreamingFVU") -> None:
        """Add the rows another one has seen."""
        if other._mean is not None:
            self._merge(other.n_rows, other._mean, other.total, other.residual)

    def value(self) -> float | None:
        """The FVU; None before any row, and where all rows are equal."""
        return self.residual / self.total if self.total > 0 else None

    def _merge(self, n_rows: int, mean: Tensor, total: float, residual: float) -> None:
        self._mean = torch.zeros_like(mean) if self._mean is None else self._mean
        n_both = self.n_rows + n_rows
        shift = mean - self._mean
        self.total += total + shift.square().sum().item() * self.n_rows * n_rows / n_both
        self.residual += residual
        self._mean = self._mean + shift * (n_rows / n_both)
        self.n_rows = n_both


class StreamingMean:
    """Mean of the finite values seen; what is not finite is counted apart."""

    def __init__(self) -> None:
        self.sum = 0.0
        self.n = 0
        self.n_undefined = 0

    def update(self, values: Float[Tensor, " batch"]) -> None:
        """Add values."""
        finite = values[values.isfinite()].double()
        self.sum += finite.sum().item()
        self.n += len(finite)
        self.n_undefined += len(values) - len(finite)

    def merge(self, other: "StreamingMean") -> None:
        """Add the values another one has seen."""
        self.sum, self.n = self.sum + other.sum, self.n + other.n
        self.n_undefined += other.n_undefined

    def value(self) -> float | None:
        """The mean; None if there was no finite value."""
        return self.sum / self.n if self.n else None


class StreamingBias:
    """Relative reconstruction bias Σ‖x_hat‖² / Σ x·x_hat: the factor that x_hat is too long by, on the whole.

    1 is unbiased, below 1 is shrinkage. Rajamanoharan et al. 2024, arXiv:2404.16014, equation 10.
    """

    def __init__(self) -> None:
        self.square = 0.0
        """Σ‖x_hat‖²."""
        self.product = 0.0
        """Σ x·x_hat."""

    def update(self, x: Float[Tensor, "batch d_out"], x_hat: Float[Tensor, "batch d_out"]) -> None:
        """Add rows."""
        x, x_hat = x.detach().double(), x_hat.detach().double()
        self.square += x_hat.square().sum().item()
        self.product += (x * x_hat).sum().item()

    def merge(self, other: "StreamingBias") -> None:
        """Add the rows another one has seen."""
        self.square, self.product = self.square + other.square, self.product + other.product

    def value(self) -> float | None:
        """The bias; None where no x_hat points along its x."""
        return self.square / self.product if self.product > 0 else None


class StreamingFiring:
    """How often each latent is active, over all rows seen."""

    def __init__(self, d_sae: int) -> None:
        self.n_rows = 0
        self.counts: Int[Tensor, " d_sae"] = torch.zeros(d_sae, dtype=torch.int64)
        """Rows in which each latent is active."""
        self.rows_by_l0: Int[Tensor, " d_sae+1"] = torch.zeros(d_sae + 1, dtype=torch.int64)
        """Rows that have 0, 1, 2 … active latents."""

    def update(self, latents: SparseLatents) -> None:
        """Add rows."""
        active = latents.indices[latents.active]
        self.counts += torch.bincount(active, minlength=len(self.counts)).cpu()
        self.rows_by_l0 += torch.bincount(row_l0(latents), minlength=len(self.rows_by_l0)).cpu()
        self.n_rows += latents.n_rows

    def merge(self, other: "StreamingFiring") -> None:
        """Add the rows another one has seen."""
        self.counts, self.rows_by_l0 = self.counts + other.counts, self.rows_by_l0 + other.rows_by_l0
        self.n_rows += other.n_rows

    def density(self) -> Float[Tensor, " d_sae"] | None:
        """Fraction of rows in which each latent is active."""
        return self.counts.double() / self.n_rows if self.n_rows else None

    def l0(self) -> float | None:
        """Mean number of active latents per row."""
        return self.counts.sum().item() / self.n_rows if self.n_rows else None

    def dead_fraction(self) -> float | None:
        """Fraction of latents active in none of the rows; depends on how many rows were seen, so say so beside it."""
        return (self.counts == 0).double().mean().item() if self.n_rows else None


class StreamingBits:
    """Bits per row of an SAE's integer codes, over all rows seen."""

    def __init__(self, sae: SAE) -> None:
        self._sae = sae if isinstance(sae, Coded) else None
        self.n_rows = 0
        self.counts: Int[Tensor, " n_codes"] = torch.zeros(self._sae.n_codes if self._sae else 0, dtype=torch.int64)
        """Rows in which each code occurs."""

    def update(self, latents: SparseLatents) -> None:
        """Add rows."""
        if self._sae is not None:
            self.counts += count_codes(self._sae.codes_of(latents), len(self.counts)).cpu()
            self.n_rows += latents.n_rows

    def merge(self, other: "StreamingBits") -> None:
        """Add the rows another one has seen."""
        self.counts, self.n_rows = self.counts + other.counts, self.n_rows + other.n_rows

    def value(self) -> float | None:
        """The bits; None for an SAE without codes, and before any row."""
        return self._sae.bits_per_row(self.counts, self.n_rows).item() if self._sae and self.n_rows else None


class Evaluation(NamedTuple):
    """The metrics of one SAE on one set of rows."""

    n_rows: int
    fvu: float | None
    """Fraction of variance unexplained."""
    l0: float | None
    """Mean number of active latents per row."""
    dead_fraction: float | None
    """Fraction of latents active in none of the rows."""
    cosine: float | None
    """Mean cosine between x and x_hat, over rows where both are non-zero."""
    l2_ratio: float | None
    """Mean ‖x_hat‖ / ‖x‖ over rows where x is non-zero: below 1 is shrinkage."""
    relative_bias: float | None
    """Relative reconstruction bias: below 1 is shrinkage."""
    counts: Int[Tensor, " d_sae"]
    """Rows in which each latent is active."""
    rows_by_l0: Int[Tensor, " d_sae+1"]
    """Rows that have 0, 1, 2 … active latents."""
    bits_per_row: float | None
    """Of the integer codes, for variants that have them."""


class StreamingEvaluation:
    """All metrics of one SAE over all rows seen."""

    def __init__(self, sae: SAE) -> None:
        self.fvu, self.bias = StreamingFVU(), StreamingBias()
        self.firing, self.bits = StreamingFiring(sae.cfg.d_sae), StreamingBits(sae)
        self.cosine, self.l2_ratio = StreamingMean(), StreamingMean()
        self._sae = sae

    @torch.no_grad()
    def update(self, x: Tensor, target: Tensor | None = None) -> SAEOutput:
        """Add rows, and what they are to be mapped to if that is not themselves; what the SAE made of them."""
        x = x.to(self._sae.W_dec)
        target = x if target is None else target.to(self._sae.W_dec)
        out = self._sae(x)
        # at the scale that is trained at: sites of a crosscoder weigh the same
        self.fvu.update(self._sae.enter_target(target), self._sae.enter_target(out.x_hat))
        self.firing.update(out.latents)
        self.cosine.update(row_cosine(target, out.x_hat))
        self.l2_ratio.update(row_l2_ratio(target, out.x_hat))
        self.bias.update(target, out.x_hat)
        self.bits.update(out.latents)
        return out

    def merge(self, other: "StreamingEvaluation") -> None:
        """Add the rows another one of the same SAE has seen."""
        for name in ("fvu", "firing", "cosine", "l2_ratio", "bias", "bits"):
            getattr(self, name).merge(getattr(other, name))

    def value(self) -> Evaluation:
        """The metrics."""
        return Evaluation(
            n_rows=self.fvu.n_rows,
            fvu=self.fvu.value(),
            l0=self.firing.l0(),
            dead_fraction=self.firing.dead_fraction(),
            cosine=self.cosine.value(),
            l2_ratio=self.l2_ratio.value(),
            relative_bias=self.bias.value(),
            counts=self.firing.counts,
            rows_by_l0=self.firing.rows_by_l0,
            bits_per_row=self.bits.value(),
        )


def evaluate(sae: SAE, batches: Iterable[Tensor | tuple[Tensor, Tensor]]) -> Evaluation:
    """All metrics over all rows of `batches`, in one pass; pairs are rows and what they are to be mapped to."""
    found = StreamingEvaluation(sae)
    for batch in batches:
        found.update(*(batch if isinstance(batch, tuple) else (batch,)))
    return found.value()


def row_l0(latents: SparseLatents) -> Int[Tensor, " batch"]:
    """Number of active latents of each row."""
    return latents.pattern.row_sum(latents.active.to(torch.float32)).long()


def row_cosine(x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]) -> Float[Tensor, " batch"]:
    """Cosine of each row with its reconstruction; NaN where either is zero."""
    x, x_hat = x.double(), x_hat.double()
    return torch.linalg.vecdot(x, x_hat) / (x.norm(dim=1) * x_hat.norm(dim=1))


def row_l2_ratio(x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]) -> Float[Tensor, " batch"]:
    """‖x_hat‖ / ‖x‖ of each row; NaN where x is zero."""
    norm = x.double().norm(dim=1)
    return torch.where(norm > 0, x_hat.double().norm(dim=1) / norm, torch.nan)


def loss_recovered(clean: float, spliced: float, ablated: float) -> float | None:
    """(ablated − spliced) / (ablated − clean): 1 if splicing the reconstruction in costs nothing, 0 if all.

    Cross-entropies, or divergences from the clean model (then `clean` is 0), of the model as it is, with x replaced by
    x_hat, and with x replaced by the baseline (name it beside the number: zero and mean ablation differ much). Not
    clipped: below 0 the SAE is worse than the baseline. None where ablating costs nothing, since then there is nothing
    to recover.
    """
    return (ablated - spliced) / (ablated - clean) if ablated > clean else None
