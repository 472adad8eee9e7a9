"""Products that touch only the latents a row keeps: x_hat = Σ_e values[e] · W_dec[indices[e]] and its gradients.

Kept latents are held row after row (CSR), as many in a row as it has. With G = ∂loss/∂x_hat and S the sparse
[batch, d_sae] matrix of kept values, the weight gradient is SᵀG. Sᵀ is S regrouped by latent, so one stable sort of the
indices turns it into the same gather-and-sum as the decode: no [batch, k, d_in] tensor, no atomics, nothing dense of
width d_sae. In the spirit of the kernels of Gao et al. 2024, arXiv:2406.04093, appendix D. Where so much is kept that a
sparse matrix costs more than a dense one (a ReLU SAE before training), the products are dense.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from sae import kernels

SHORT = 2**16
"""Latents that 16 bits tell apart."""
DENSE_ABOVE = 0.1
"""Share of latents kept above which dense products are the faster ones (CPU, 2 cores)."""


class _Sorted(NamedTuple):
    """The kept entries regrouped by latent: group i is `order[starts[i] : starts[i + 1]]`."""

    order: Int[Tensor, " kept"]
    starts: Int[Tensor, " d_sae_and_1"]


class Pattern:
    """Which latents each row keeps. Shared by encoder and decoder so that a backward pass sorts once."""

    def __init__(self, indices: Int[Tensor, " kept"], offsets: Int[Tensor, " batch_and_1"], d_sae: int) -> None:
        """Row i keeps the latents `indices[offsets[i] : offsets[i + 1]]`, each at most once."""
        self.indices, self.offsets, self.d_sae = indices, offsets, d_sae
        self.n_real: Tensor | None = None
        """Where not None, only so many entries are there, and the rest only fill up."""

    @staticmethod
    def of_table(indices: Int[Tensor, "batch k"], d_sae: int) -> "Pattern":
        """As many latents in every row."""
        n_rows, k = indices.shape
        numbers = torch.arange(n_rows + 1, device=indices.device)
        pattern = Pattern(indices.flatten(), numbers * k, d_sae)
        pattern.rows = numbers[:-1].unsqueeze(1).expand(n_rows, k).flatten()
        return pattern

    @staticmethod
    def cat(parts: Sequence["Pattern"]) -> "Pattern":
        """The rows of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        before = list(accumulate((len(part.indices) for part in parts), initial=0))
        above = list(accumulate((len(part) for part in parts), initial=0))
        ends = [part.offsets[1:] + n for part, n in zip(parts, before, strict=False)]
        indices = torch.cat([part.indices for part in parts])
        pattern = Pattern(indices, torch.cat([parts[0].offsets[:1], *ends]), parts[0].d_sae)
        pattern.rows = torch.cat([part.rows + n for part, n in zip(parts, above, strict=False)])
        return pattern

    def split(self, group: Int[Tensor, " kept"], n_groups: int) -> "Pattern":
        """The same entries with each row cut into `n_groups`: row · n_groups + group. Groups must not fall in a row."""
        virtual = self.rows * n_groups + group
        edges = torch.arange(len(self) * n_groups + 1, device=virtual.device)
        parts = Pattern(self.indices, torch.searchsorted(virtual, edges), self.d_sae)
        # the same latents in the same order: their sort is shared
        parts.rows, parts._sorted = virtual, self._sorted
        return parts

    def __len__(self) -> int:
        """Rows."""
        return len(self.offsets) - 1

    @cached_property
    def rows(self) -> Int[Tensor, " kept"]:
        """The row of each kept entry."""
        each = torch.arange(len(self), device=self.indices.device)
        return each.repeat_interleave(self.offsets.diff(), output_size=len(self.indices))

    @property
    def is_dense(self) -> bool:
        """Whether so much is kept that dense products are the faster ones."""
        return len(self.indices) > DENSE_ABOVE * len(self) * self.d_sae

    @cached_property
    def _sorted(self) -> _Sorted:
        latents, order = _stable_sort(self.indices, self.d_sae)
        edges = torch.arange(self.d_sae + 1, device=latents.device, dtype=latents.dtype)
        return _Sorted(order, torch.searchsorted(latents, edges))

    @cached_property
    def _rows_by_latent(self) -> Int[Tensor, " kept"]:
        return self.rows[self._sorted.order]

    def scattered(self, values: Float[Tensor, " kept"]) -> Float[Tensor, "batch d_sae"]:
        """S as a dense matrix."""
        flat = values.new_zeros(len(self) * self.d_sae)
        # added: entries that only fill up share a place with a real one, and are 0
        return flat.scatter_add(0, self.rows * self.d_sae + self.indices, values).view(len(self), self.d_sae)

    @torch.no_grad()
    def transposed_product(
        self, values: Float[Tensor, " kept"], dense: Float[Tensor, "batch d"]
    ) -> Float[Tensor, "d_sae d"]:
        """SᵀG: for each latent, the sum of `dense` rows that keep it, weighted by `values`. Carries no gradient."""
        if self.is_dense:
            return self.scattered(values).t() @ dense
        order, starts = self._sorted
        return kernels.gather_sum(values[order], dense, self._rows_by_latent, starts)

    def transposed_sum(self, values: Float[Tensor, " kept"]) -> Float[Tensor, " d_sae"]:
        """Sᵀ1: for each latent, the sum of its values over rows."""
        return values.new_zeros(self.d_sae).index_add_(0, self.indices, values)

    def row_sum(self, values: Float[Tensor, " kept"]) -> Float[Tensor, " batch"]:
        """S1: for each row, the sum of its values; differentiable."""
        return values.new_zeros(len(self)).index_add(0, self.rows, values)


def _stable_sort(indices: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    """Sorted latents and their order; stable, for one summation order, so that reruns agree."""
    if indices.device.type == "cpu" and d_sae <= SHORT:
        # numpy sorts 16 bits by radix, in half of torch's time
        short = indices.numpy().astype(np.uint16)
        order = torch.from_numpy(short.argsort(kind="stable"))
        return indices.int()[order], order
    return indices.int().sort(stable=True)


class SparseLatents(NamedTuple):
    """The kept latents of each row; a latent is active where its value is not 0."""

    values: Float[Tensor, " kept"]
    """In units of x, unless the variant says otherwise."""
    pattern: Pattern
    """Which row and which latent each value belongs to."""

    @staticmethod
    def of_table(values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], d_sae: int) -> "SparseLatents":
        """As many latents in every row; indices are distinct within a row."""
        return SparseLatents(values.flatten(), Pattern.of_table(indices, d_sae))

    @property
    def indices(self) -> Int[Tensor, " kept"]:
        """The latent of each value."""
        return self.pattern.indices

    @property
    def rows(self) -> Int[Tensor, " kept"]:
        """The row of each value."""
        return self.pattern.rows

    @property
    def n_rows(self) -> int:
        """Rows, those that keep nothing included."""
        return len(self.pattern)

    @property
    def active(self) -> Bool[Tensor, " kept"]:
        """Which of the kept latents are active."""
        return self.values != 0

    def l0(self) -> Float[Tensor, ""]:
        """Mean number of active latents per row."""
        return self.active.sum() / self.n_rows

    def dense(self) -> Float[Tensor, "batch d_sae"]:
        """The same latents as a dense matrix: for tests and small inputs only."""
        return self.pattern.scattered(self.values)

    def columns(self, latents: Int[Tensor, " n"]) -> Float[Tensor, "batch n"]:
        """The values of these latents, all different, in each row; 0 where they are not kept."""
        place = torch.full((self.pattern.d_sae,), -1, dtype=torch.long, device=self.indices.device)
        place[latents] = torch.arange(len(latents), device=self.indices.device)
        column = place[self.indices]
        found = column >= 0
        out = self.values.new_zeros(self.n_rows, len(latents))
        return out.index_put((self.rows[found], column[found]), self.values[found])

    def select(self, latent: int) -> Float[Tensor, " batch"]:
        """The value of one latent in each row, 0 where it is not kept."""
        return self.pattern.row_sum(self.values * (self.indices == latent))


class _TakePreActs(torch.autograd.Function):
    """Kept pre-activations; backward goes to the encoder columns of the kept latents and nowhere else."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        b_pre: Tensor | None,
        x_centred: Tensor,
        kept: Tensor,
        pattern: Pattern,
    ) -> Tensor:
        ctx.save_for_backward(x_centred, W_enc)
        ctx.pattern = pattern
        return kept.view_as(kept)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x_centred, W_enc = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        grad_x = gather_sum(grad, W_enc.t(), pattern) if ctx.needs_input_grad[0] else None
        grad_W_enc = pattern.transposed_product(grad, x_centred).t()
        grad_b_enc = pattern.transposed_sum(grad)
        # Σ_rows ∂loss/∂x_centred = W_enc · grad_b_enc, so b_pre needs no per-row gradient: Gao et al. 2024, appendix D
        grad_b_pre = -(W_enc @ grad_b_enc) if ctx.needs_input_grad[3] else None
        return grad_x, grad_W_enc, grad_b_enc, grad_b_pre, None, None, None


class _SquaredError(torch.autograd.Function):
    """Σ_j w_j ‖x_hat_j − target‖² over nested reconstructions, in one buffer of errors that becomes their gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
        target: Tensor,
        parts: Pattern,
        weights: Tensor,
        final: int,
        keep_error: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        error = gather_sum(values, W_dec, parts).view(len(target), len(weights), -1)
        error[:, 0] += b_dec
        error[:, 0] -= target
        for j in range(1, len(weights)):
            error[:, j] += error[:, j - 1]
        # row by row first: one float32 sum over everything would be off in the third digit
        squares = torch.linalg.vector_norm(error, dim=2).double().square().sum(dim=0).to(error.dtype)
        ctx.save_for_backward(values, W_dec, weights)
        ctx.error, ctx.parts = error, parts
        square, kept = squares[final], error[:, final].clone() if keep_error else None
        ctx.mark_non_differentiable(square, *([] if kept is None else [kept]))
        return weights @ squares, square, kept

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if grad_outputs[0] is None:
            return (None,) * 8
        if ctx.error is None:
            raise RuntimeError(
                "a squared error was differentiated twice: its errors were overwritten, compute it again"
            )
        values, W_dec, weights = ctx.saved_tensors
        parts: Pattern = ctx.parts
        grad, ctx.error = ctx.error.mul_((2 * grad_outputs[0] * weights).view(1, -1, 1)), None
        # a latent of part j is in every reconstruction from j on
        for j in range(len(weights) - 2, -1, -1):
            grad[:, j] += grad[:, j + 1]
        whole, by_part = grad[:, 0], grad.view(-1, grad.shape[2])
        grad_values = gather_dot(by_part, W_dec, parts)
        grad_W_dec = parts.transposed_product(values, by_part) if ctx.needs_input_grad[1] else None
        grad_target = -whole if ctx.needs_input_grad[3] else None
        return grad_values, grad_W_dec, whole.sum(0), grad_target, None, None, None, None


class _Decode(torch.autograd.Function):
    """Σ_e values[e] · W_dec[indices[e]]; backward goes to the values and to the decoder rows of the kept latents."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values, W_dec)
        ctx.pattern = pattern
        return gather_sum(values, W_dec, pattern)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        values, W_dec = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        grad_values = gather_dot(grad, W_dec, pattern) if ctx.needs_input_grad[0] else None
        grad_W_dec = pattern.transposed_product(values, grad) if ctx.needs_input_grad[1] else None
        return grad_values, grad_W_dec, None


@torch.no_grad()
def gather_sum(
    values: Float[Tensor, " kept"], rows: Float[Tensor, "d_sae d"], pattern: Pattern
) -> Float[Tensor, "batch d"]:
    """Σ_e values[e] · rows[indices[e]] for each row. Carries no gradient."""
    if pattern.is_dense:
        return pattern.scattered(values) @ rows
    return kernels.gather_sum(values, rows, pattern.indices, pattern.offsets)


@torch.no_grad()
def gather_dot(
    dense: Float[Tensor, "batch d"], rows: Float[Tensor, "d_sae d"], pattern: Pattern
) -> Float[Tensor, " kept"]:
    """For each kept entry, the dot product of its row of `dense` with its latent's row. Carries no gradient."""
    if pattern.is_dense:
        return (dense @ rows.t()).flatten()[pattern.rows * pattern.d_sae + pattern.indices]
    return kernels.gather_dot(dense, rows, pattern.indices, pattern.offsets, pattern.rows)


def row_dot(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """The dot product of each row with its partner: a gather of every row once, which needs no [n, d] product."""
    each = torch.arange(len(a) + 1, device=a.device)
    return kernels.gather_dot(a, b, each[:-1], each, each[:-1])


def take_pre_acts(
    x: Float[Tensor, "batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"] | None,
    x_centred: Float[Tensor, "batch d_in"],
    kept: Float[Tensor, " kept"],
    pattern: Pattern,
) -> Float[Tensor, " kept"]:
    """The entries of (x − b_pre) W_enc + b_enc that `pattern` keeps, with gradients to all four inputs.

    `x_centred` = x − b_pre and `kept` are as already computed; they carry no gradient themselves.
    """
    return _TakePreActs.apply(x, W_enc, b_enc, b_pre, x_centred, kept, pattern)  # pyright: ignore[reportReturnType]


def decode(
    values: Float[Tensor, " kept"], W_dec: Float[Tensor, "d_sae d_out"], pattern: Pattern
) -> Float[Tensor, "batch d_out"]:
    """Σ_e values[e] · W_dec[indices[e]] for each row, with gradients to `values` and `W_dec`."""
    return _Decode.apply(values, W_dec, pattern)  # pyright: ignore[reportReturnType]


class SquaredError(NamedTuple):
    """How far a reconstruction is from its target."""

    total: Float[Tensor, ""]
    """Σ_j w_j ‖x_hat_j − target‖² over all rows, differentiable."""
    final: Float[Tensor, ""]
    """That of the final reconstruction alone, without gradient or weight."""
    error: Float[Tensor, "batch d_out"] | None
    """x_hat − target of the final reconstruction, without gradient; None where it was not asked for."""


class Nesting(NamedTuple):
    """Nested reconstructions: number j uses the groups up to j."""

    group: Int[Tensor, " kept"]
    """Of each kept latent; a row's latents are ordered by it."""
    weights: Float[Tensor, " n_groups"]
    """Of the reconstructions."""
    final: int = -1
    """Which of them is the SAE's own."""


def squared_error(
    latents: SparseLatents,
    W_dec: Float[Tensor, "d_sae d_out"],
    b_dec: Float[Tensor, " d_out"],
    target: Float[Tensor, "batch d_out"],
    nesting: Nesting | None = None,
    *,
    keep_error: bool = False,
) -> SquaredError:
    """The squared error of a reconstruction, or of nested ones in a single cumulative pass.

    Args:
        latents: of each row.
        W_dec: decoder rows.
        b_dec: added to every reconstruction.
        target: what is reconstructed.
        nesting: None for one reconstruction from all latents.
        keep_error: whether the final one's errors are wanted.
    """
    parts, weights, final = latents.pattern, target.new_ones(1), -1
    if nesting is not None:
        group, weights, final = nesting
        parts = parts.split(group, len(weights))
    found = _SquaredError.apply(latents.values, W_dec, b_dec, target, parts, weights, final, keep_error)
    return SquaredError(*found)  # pyright: ignore[reportGeneralTypeIssues]
