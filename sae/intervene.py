"""Edits of the residual stream through one latent: h' = h + (value − a_i(h)) · W_dec[i], or h' = h + s · W_dec[i].

Adding the difference, instead of replacing h by a reconstruction, keeps the SAE's error term h − x_hat(h): what the SAE
does not explain passes through untouched. Templeton et al. 2024, transformer-circuits.pub/2024/scaling-monosemanticity.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.base import SAE

Intervention = Callable[[Tensor], Tensor]
"""[..., d_in] in, the same shape out."""


def clamp(sae: SAE, latent: int, value: float, mask: Bool[Tensor, "..."] | None = None) -> Intervention:
    """Set a latent to `value` (units of x) in every position, or only where `mask`, of the leading shape, is True.

    Rows whose latent already has `value`, and rows outside the mask, come back bit for bit. Positions to leave alone
    (attention sinks, padding) are the caller's to mask. What holds exactly: h' − h is parallel to W_dec[latent], with
    length |value − a_i(h)|. What does not: encoding h' again need not give `value`, because the encoder row is not the
    decoder row and other latents compete for the top k; so clamping is not idempotent in general.
    """
    if not 0 <= latent < sae.cfg.d_sae:
        raise ValueError(f"latent={latent} is outside 0..{sae.cfg.d_sae - 1}: d_sae={sae.cfg.d_sae}")

    @torch.no_grad()
    def edit(h: Float[Tensor, "*leading d_in"]) -> Float[Tensor, "*leading d_in"]:
        rows = h.reshape(-1, h.shape[-1])
        wanted = _row_mask(mask, h)
        x = rows[wanted].to(device=sae.W_dec.device, dtype=sae.W_dec.dtype)
        change = value - sae.encode(x).select(latent)
        edited = (x + change.unsqueeze(1) * sae.W_dec[latent]).to(device=h.device, dtype=h.dtype)
        moved = (change != 0).to(h.device)
        wanted = wanted.index_put((wanted.nonzero().squeeze(1),), moved)
        return rows.index_put((wanted,), edited[moved]).reshape(h.shape)

    return edit


def ablate(sae: SAE, latent: int, mask: Bool[Tensor, "..."] | None = None) -> Intervention:
    """Remove a latent's contribution: `clamp` to 0. Rows in which it is not active come back bit for bit."""
    return clamp(sae, latent, 0.0, mask)


def push(rows: Float[Tensor, "batch d_in"], strengths: Float[Tensor, " batch"]) -> Intervention:
    """Add strengths[b] · rows[b] to every position of sequence b, whatever is there; strength 0 changes no bit."""

    @torch.no_grad()
    def edit(h: Float[Tensor, "batch pos d_in"]) -> Float[Tensor, "batch pos d_in"]:
        change = strengths[:, None, None] * rows[:, None, :]
        return (h.to(device=rows.device, dtype=rows.dtype) + change).to(device=h.device, dtype=h.dtype)

    return edit


def _row_mask(mask: Tensor | None, h: Tensor) -> Tensor:
    """One boolean per row of the flattened `h`."""
    leading = h.shape[:-1]
    if mask is None:
        return torch.ones(leading.numel(), dtype=torch.bool, device=h.device)
    try:
        return mask.to(h.device).expand(leading).reshape(-1)
    except RuntimeError as error:
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} does not fit positions of shape {tuple(leading)}: "
            "pass one boolean per position, or a shape that broadcasts"
        ) from error
