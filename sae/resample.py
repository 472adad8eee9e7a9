"""Resampling: dead latents are pointed at rows that are reconstructed badly.

Rows of the current batch are drawn with probability ∝ (squared error)², one for each dead latent, without replacement
(there: of a large sample). Its decoder row becomes the row's direction, its encoder row the same times a fraction of
the living encoder rows' mean norm, its biases 0. Bricken et al. 2023,
transformer-circuits.pub/2023/monosemantic-features, appendix "Neuron resampling".
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.encoder import EncoderSAE, to_unit_norm_

ENCODER_SCALE = 0.2
"""Of the living encoder rows' mean norm: Bricken et al. 2023."""


@torch.no_grad()
def resample(
    sae: EncoderSAE,
    x: Float[Tensor, "batch d_in"],
    dead: Int[Tensor, " n_dead"],
    generator: torch.Generator,
    target: Float[Tensor, "batch d_out"] | None = None,
) -> Int[Tensor, " n_resampled"]:
    """Point dead latents at badly reconstructed rows, at most one each; returns the latents that were changed."""
    wanted = x if target is None else target
    squares = (sae(x).x_hat - wanted).double().square().sum(dim=1).square()
    n = min(len(dead), int((squares > 0).sum()))
    if n == 0 or len(dead) == sae.cfg.d_sae:
        return dead[:0]
    chosen = torch.multinomial(squares.cpu(), n, generator=generator).to(x.device)
    latents = dead[:n]
    inwards = to_unit_norm_(sae.enter(x)[chosen] - sae.b_pre) * _living_norm(sae, dead) * ENCODER_SCALE
    sae.point(latents, inwards, to_unit_norm_(sae.enter_target(wanted)[chosen] - sae.b_dec))
    return latents


def _living_norm(sae: EncoderSAE, dead: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(sae.W_enc, dim=0)
    living = torch.ones_like(norms).index_fill_(0, dead, 0.0)
    return (norms * living).sum() / living.sum()
