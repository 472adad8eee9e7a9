"""A dictionary's tensors in float64 while they are folded, in the orientation used here; then one of the variants.

    z = (x − b_pre) W_enc + b_enc,   x_hat = Σ_i a_i W_dec[i] + b_dec,   b_pre = b_dec

Every fold is an identity, not an approximation: it leaves x_hat as it was for every x, up to rounding. Each is done
where algebra allows; where it does not, the reader refuses.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae import VARIANTS
from sae.base import SAE
from store.errors import UsageError


@dataclass
class Parts:
    """What every encoder SAE has; all in float64."""

    W_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d_out"]
    b_dec: Float[Tensor, " d_out"]
    others: dict[str, Tensor] = field(default_factory=dict)
    """A variant's own: `r_mag` and `b_mag`, `threshold`, `W_skip`."""

    def fold_input_bias(self) -> None:
        """x W_enc + b_enc, where nothing is subtracted from x, as (x − b_dec) W_enc + b_enc'.

        b_enc' = b_enc + b_dec W_enc; a gated SAE's magnitudes, exp(r_mag) · x W_enc + b_mag, likewise.
        """
        shift = self.b_dec @ self.W_enc
        self.b_enc = self.b_enc + shift
        if "b_mag" in self.others:
            self.others["b_mag"] = self.others["b_mag"] + self.others["r_mag"].exp() * shift

    def unfold_input_bias(self) -> None:
        """The reverse: (x − b_dec) W_enc + b_enc as x W_enc + b_enc'."""
        self.b_dec = -self.b_dec
        self.fold_input_bias()
        self.b_dec = -self.b_dec

    def fold_decoder_norms(self) -> None:
        """Decoder rows of norm 1, latents as many times larger: what competes by z · ‖W_dec[i]‖ then does so by z.

        A row of norm 0 adds nothing and stays so; its latent never fires.
        """
        norms = torch.linalg.vector_norm(self.W_dec, dim=1)
        self.W_enc, self.b_enc = self.W_enc * norms, self.b_enc * norms
        self.W_dec = torch.where(norms > 0, 1 / norms, 0.0).unsqueeze(1) * self.W_dec

    def fold_latent_scale(self, scale: Float[Tensor, " d_sae"]) -> None:
        """a_i · scale_i decoded: the factor goes into the decoder's rows, latents stay as they are."""
        self.W_dec = scale.unsqueeze(1) * self.W_dec

    def fold_whitening(
        self, mean: Float[Tensor, " d_in"], matrix: Float[Tensor, "d_in d_in"], inverse: Float[Tensor, "d_in d_in"]
    ) -> None:
        """An SAE of (x − mean) matrix, whose output is taken back by x_hat inverse + mean, as one of x itself."""
        self.W_enc = matrix @ self.W_enc
        self.W_dec = self.W_dec @ inverse
        self.b_dec = self.b_dec @ inverse + mean


def log_threshold(threshold: Float[Tensor, " d_sae"], dtype: torch.dtype) -> Float[Tensor, " d_sae"]:
    """What JumpReLU keeps of thresholds, at unit 1.

    Negative ones and 0 become the smallest normal number: ReLU comes before the jump, and between 0 and that number
    there is no pre-activation that is worth anything.
    """
    return threshold.clamp_min(torch.finfo(dtype).tiny).log()


def build(
    path: Path,
    variant: str,
    settings: dict[str, Any],
    parts: Parts,
    dtype: torch.dtype = torch.float32,
    **others: Tensor,
) -> SAE:
    """The variant with these settings and tensors; `d_in`, `d_sae` and `d_out` follow from the tensors.

    Args:
        path: where they are from, for the message.
        variant: in `sae.VARIANTS`.
        settings: fields of its config, without the widths.
        parts: tensors that all encoder SAEs have.
        dtype: what it computes in.
        others: its own parameters and buffers by name, such as `log_threshold`.

    Raises:
        UsageError: the variant does not allow such settings, or folding left float32's range.
    """
    cls = VARIANTS[variant]
    d_in, d_sae = parts.W_enc.shape
    widths = {"d_in": d_in, "d_sae": d_sae, "d_out": parts.W_dec.shape[1]}
    known = cls.config_cls.__dataclass_fields__
    try:
        sae = cls(cls.config_cls(**{name: widths[name] for name in widths if name in known}, **settings)).to(dtype)
    except ValueError as error:
        raise UsageError(f"{path} asks for a {variant} that there cannot be: {error}") from error
    tensors = {name: getattr(parts, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")} | others
    with torch.no_grad():
        for name, tensor in tensors.items():
            # copied into what is there: W_enc keeps its transposed memory
            getattr(sae, name).copy_(tensor)
            if not getattr(sae, name).isfinite().all():
                raise UsageError(f"{path}: {name} leaves the range of {str(dtype)[6:]} when it is folded")
    return sae
