"""AuxK: dead latents learn to explain what the live ones leave over.

aux = Σ‖ê − e‖² / Σ‖e − mean(e)‖², e = x − x_hat held fixed, ê = the reconstruction of e from each row's k_aux largest
*dead* latents. Gao et al. 2024, arXiv:2406.04093, appendix A.2.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae import sparse
from sae.loss import variance
from sae.sparse import Pattern

SPARSE_ABOVE = 8
"""Dead latents per kept one above which the sparse products beat dense ones over the dead columns (CPU, 2 cores)."""


def default_k_aux(d_in: int) -> int:
    """Half of d_in, at least 1: Gao et al. 2024, appendix A.2 (there rounded to a power of two)."""
    return max(1, d_in // 2)


def auxk_loss(
    residual: Float[Tensor, "batch d_out"],
    x_centred: Float[Tensor, "batch d_in"],
    weights: tuple[Float[Tensor, "d_in d_sae"], Float[Tensor, " d_sae"], Float[Tensor, "d_sae d_out"]],
    dead: Int[Tensor, " n_dead"],
    k_aux: int,
) -> Float[Tensor, ""]:
    """The loss of the dead latents alone; `weights` are W_enc, b_enc, W_dec. 0 where nothing is dead.

    The gradient reaches encoder and decoder rows of dead latents only: the residual, the input and b_dec are constants.
    """
    if len(dead) == 0:
        return residual.new_zeros(())
    residual = residual.detach()
    k_aux = min(k_aux, len(dead))
    reconstruct = _sparse if len(dead) > SPARSE_ABOVE * k_aux else _dense
    error = reconstruct(x_centred, weights, dead, k_aux) - residual
    left = variance(residual)
    # a residual without variance leaves nothing to explain: over inf, so that the gradient is 0 as well and not NaN
    return error.square().sum() / left.masked_fill(left <= 0, torch.inf)


def _dense(x_centred: Tensor, weights: tuple, dead: Tensor, k_aux: int) -> Tensor:
    """Dense products over the dead columns only: cheapest while few latents are dead."""
    W_enc, b_enc, W_dec = weights
    acts = torch.relu(torch.addmm(b_enc[dead], x_centred, W_enc.t()[dead].t()))
    if k_aux < len(dead):
        kept = acts.detach().topk(k_aux, sorted=False).indices
        acts = acts * torch.zeros_like(acts).scatter_(1, kept, 1.0)
    return acts @ W_dec[dead]


def _sparse(x_centred: Tensor, weights: tuple, dead: Tensor, k_aux: int) -> Tensor:
    """The sparse products of the main path: their cost does not grow with the number of dead latents."""
    W_enc, b_enc, W_dec = weights
    with torch.no_grad():
        pre_acts = torch.addmm(b_enc[dead], x_centred, W_enc.t()[dead].t())
        kept = pre_acts.topk(k_aux, sorted=False)
        pattern = Pattern.of_table(dead[kept.indices], len(W_dec))
    values = sparse.take_pre_acts(x_centred, W_enc, b_enc, None, x_centred, kept.values.flatten(), pattern)
    return sparse.decode(torch.relu(values), W_dec, pattern)
