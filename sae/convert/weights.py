"""What several readers and writers ask of a decoder's norms, and how thresholds become a transcoder's.

Where values compete, `decoder_norm="unit"` lets them compete by themselves whatever the rows' norms are, as in most
libraries; `"free"` by value times norm.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.base import SAE
from sae.convert.parts import Parts, build
from sae.encoder import DecoderNorm
from store.errors import UsageError

UNIT_TOLERANCE = 4e-3
"""How far from 1 norms may be that were made 1: rounding to 16 bits moves one by as much."""
DEFAULT_K = 32
"""For variants that keep what is above a threshold, where a checkpoint does not say which L0 that gives."""


def norm_setting(W_dec: Float[Tensor, "d_sae d_out"]) -> DecoderNorm:
    """Whether decoder rows have norm 1, or any."""
    norms = torch.linalg.vector_norm(W_dec, dim=1)
    return "unit" if bool(((norms - 1).abs() <= UNIT_TOLERANCE).all()) else "free"


def held(sae: Any) -> Parts:
    """A dictionary's tensors in float64, for writing."""
    return Parts(*(getattr(sae, name).detach().double() for name in ("W_enc", "b_enc", "W_dec", "b_dec")))


def held_at_unit_norm(sae: Any) -> Parts:
    """The same where latents compete: those of free norms scaled to norm 1, after which the value alone counts."""
    parts = held(sae)
    if sae.cfg.decoder_norm == "free":
        parts.fold_decoder_norms()
    return parts


def l0_within(asked: float | int | None, d_sae: int) -> int:
    """A config's k or target_l0 for what keeps all above a threshold: as a checkpoint tells, within the dictionary."""
    return max(1, min(round(asked or DEFAULT_K), d_sae))


def transcoder(
    path: Path,
    parts: Parts,
    k: int,
    dtype: torch.dtype,
    *,
    W_skip: Float[Tensor, "d_in d_out"] | None = None,
    keep_above: Float[Tensor, " d_sae"] | None = None,
    x_mean: Float[Tensor, " d_in"] | None = None,
) -> SAE:
    """A transcoder whose encoder subtracts `x_mean`, or nothing: of each row k latents, or all above a threshold.

    Args:
        path: where the tensors are from, for messages.
        parts: the tensors, in our orientation.
        k: latents kept in each row; where thresholds decide, about how many these are.
        dtype: what it computes in.
        W_skip: what is added to the reconstruction of the x that the encoder reads.
        keep_above: thresholds, one for each latent. Transcoders here have one for all: latents are multiplied by what
            makes theirs the geometric mean of them, and decoder rows divided by it. None may be positive, too.
        x_mean: subtracted from x.

    Raises:
        UsageError: some thresholds are positive and others are not: no scale brings these to one.
    """
    settings: dict[str, Any] = {"k": k, "decoder_norm": "free"}
    others = {name: tensor for name, tensor in (("W_skip", W_skip), ("x_mean", x_mean)) if tensor is not None}
    if keep_above is not None:
        parts, others["threshold"] = _at_one_threshold(path, parts, keep_above)
        settings["keep"] = "batch"
    variant = "transcoder" if W_skip is None else "skip_transcoder"
    return build(path, variant, settings, parts, dtype, **others)


def _at_one_threshold(path: Path, parts: Parts, thresholds: Float[Tensor, " d_sae"]) -> tuple[Parts, Tensor]:
    if not (thresholds > 0).any():
        return parts, thresholds.new_zeros(())
    if not (thresholds > 0).all():
        raise UsageError(
            f"{path}: threshold is positive for some latents and not for others: transcoders here have one threshold, "
            "and no scale of the latents brings these to one"
        )
    common = thresholds.log().mean().exp()
    scaled = Parts(parts.W_enc * (common / thresholds), parts.b_enc * (common / thresholds), parts.W_dec, parts.b_dec)
    scaled.fold_latent_scale(thresholds / common)
    return scaled, common
