"""Products that touch only the latents a row keeps: x_hat = Σ_j values[:, j] · W_dec[indices[:, j]] and its gradients.

With G = ∂loss/∂x_hat and S the sparse [batch, d_sae] matrix of kept values, the weight gradient is SᵀG. Sᵀ is S
regrouped by latent, so one stable sort of the indices turns it into the same gather-and-sum as the decode: no
[batch, k, d_in] tensor, no atomics, nothing dense of width d_sae. In the spirit of the kernels of Gao et al. 2024,
arXiv:2406.04093, appendix D.
"""

from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


class _ByLatent(NamedTuple):
    """The kept (row, slot) pairs regrouped by latent: group i is `order[starts[i] : starts[i + 1]]`."""

    order: Int[Tensor, " kept"]
    rows: Int[Tensor, " kept"]
    starts: Int[Tensor, " d_sae"]


class Pattern:
    """Which latents each row keeps. Shared by encoder and decoder so that a backward pass sorts once."""

    def __init__(self, indices: Int[Tensor, "batch k"], d_sae: int) -> None:
        self.indices = indices
        self.d_sae = d_sae

    @cached_property
    def _by_latent(self) -> _ByLatent:
        latents, order = self.indices.flatten().sort(stable=True)  # stable: one summation order, so reruns agree
        rows = order.div(self.indices.shape[1], rounding_mode="floor")
        starts = torch.searchsorted(latents, torch.arange(self.d_sae, device=latents.device))
        return _ByLatent(order, rows, starts)

    def transposed_product(
        self, values: Float[Tensor, "batch k"], dense: Float[Tensor, "batch d"]
    ) -> Float[Tensor, "d_sae d"]:
        """SᵀG: for each latent, the sum of `dense` rows that keep it, weighted by `values`."""
        order, rows, starts = self._by_latent
        weights = values.flatten()[order]
        return F.embedding_bag(rows, dense.contiguous(), offsets=starts, per_sample_weights=weights, mode="sum")

    def transposed_sum(self, values: Float[Tensor, "batch k"]) -> Float[Tensor, " d_sae"]:
        """Sᵀ1: for each latent, the sum of its values over rows."""
        return values.new_zeros(self.d_sae).index_add_(0, self.indices.flatten(), values.flatten())


class _TakePreActs(torch.autograd.Function):
    """Gather pre-activations; backward goes to the encoder columns of the gathered latents and nowhere else."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        b_dec: Tensor,
        x_centred: Tensor,
        pre_acts: Tensor,
        pattern: Pattern,
    ) -> Tensor:
        ctx.save_for_backward(x_centred, W_enc)
        ctx.pattern = pattern
        return pre_acts.gather(1, pattern.indices)

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
        # Σ_rows ∂loss/∂x_centred = W_enc · grad_b_enc, so b_dec needs no per-row gradient: Gao et al. 2024, appendix D
        return grad_x, grad_W_enc, grad_b_enc, -(W_enc @ grad_b_enc), None, None, None


class _RouteWeightGradient(torch.autograd.Function):
    """Identity on x_hat whose backward hands W_dec the gradient SᵀG."""

    @staticmethod
    def forward(ctx: Any, x_hat: Tensor, W_dec: Tensor, values: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values)
        ctx.pattern = pattern
        return x_hat.view_as(x_hat)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        (values,) = ctx.saved_tensors
        return grad, ctx.pattern.transposed_product(values, grad), None, None


def gather_sum(
    values: Float[Tensor, "batch k"], rows: Float[Tensor, "d_sae d"], pattern: Pattern
) -> Float[Tensor, "batch d"]:
    """Σ_j values[:, j] · rows[indices[:, j]], differentiable in `values` only."""
    return F.embedding_bag(pattern.indices, rows.detach(), per_sample_weights=values, mode="sum")


def take_pre_acts(
    x: Float[Tensor, "batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
    x_centred: Float[Tensor, "batch d_in"],
    pre_acts: Float[Tensor, "batch d_sae"],
    pattern: Pattern,
) -> Float[Tensor, "batch k"]:
    """The entries of pre_acts = (x − b_dec) W_enc + b_enc that `pattern` keeps, with gradients to all four inputs.

    `x_centred` and `pre_acts` are that product as already computed; they carry no gradient themselves.
    """
    return _TakePreActs.apply(x, W_enc, b_enc, b_dec, x_centred, pre_acts, pattern)  # pyright: ignore[reportReturnType]


def decode(
    values: Float[Tensor, "batch k"], W_dec: Float[Tensor, "d_sae d_in"], pattern: Pattern
) -> Float[Tensor, "batch d_in"]:
    """Σ_j values[:, j] · W_dec[indices[:, j]], with gradients to `values` and `W_dec`."""
    x_hat = gather_sum(values, W_dec, pattern)
    return _RouteWeightGradient.apply(x_hat, W_dec, values.detach(), pattern)  # pyright: ignore[reportReturnType]
