"""TopK: keep each row's k largest pre-activations, a = ReLU(TopK((x − b_dec) W_enc + b_enc)).

Gao et al. 2024, arXiv:2406.04093. The loss is FVU + aux_alpha · AuxK.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.auxk import auxk_loss, default_k_aux
from sae.base import SAE, Loss, SAEConfig, batch_fvu


@dataclass(frozen=True, kw_only=True)
class TopKConfig(SAEConfig):
    """A TopK SAE."""

    k: int = 32
    """Latents kept per row; those whose pre-activation is not positive are kept with value 0."""
    aux_alpha: float = 1 / 32
    """Weight of the AuxK loss: Gao et al. 2024, appendix A.2. 0 turns it off."""
    k_aux: int | None = None
    """Dead latents used per row by AuxK; None means d_in // 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"k={self.k} keeps nothing: choose k >= 1")
        if self.k > self.d_sae:
            raise ValueError(f"k={self.k} exceeds d_sae={self.d_sae}: choose k <= d_sae")
        if not self.aux_alpha >= 0:
            raise ValueError(f"aux_alpha={self.aux_alpha} rewards error: choose aux_alpha >= 0")
        if self.k_aux is not None and self.k_aux < 1:
            raise ValueError(f"k_aux={self.k_aux} revives nothing: choose k_aux >= 1, or aux_alpha=0 to turn AuxK off")


@final
class TopK(SAE):
    """The k largest pre-activations of each row, after ReLU."""

    config_cls = TopKConfig
    cfg: TopKConfig

    def __init__(self, cfg: TopKConfig) -> None:
        super().__init__(cfg)

    def select(self, pre_acts: Float[Tensor, "batch {self.cfg.d_sae}"]) -> Int[Tensor, "batch {self.cfg.k}"]:
        """Each row's k largest."""
        return pre_acts.topk(self.cfg.k, dim=1, sorted=False).indices

    def loss(
        self, x: Float[Tensor, "batch {self.cfg.d_in}"], dead: Bool[Tensor, " {self.cfg.d_sae}"] | None = None
    ) -> Loss:
        """FVU of the batch plus AuxK over the dead latents."""
        kept = self._keep(x)
        out = self._output(kept)
        fvu = batch_fvu(x, out.x_hat)
        if dead is None or self.cfg.aux_alpha == 0:
            return Loss(fvu, fvu, fvu.new_zeros(()), out)
        weights = (self.W_enc, self.b_enc, self.W_dec)
        k_aux = self.cfg.k_aux or default_k_aux(self.cfg.d_in)
        aux = auxk_loss(x - out.x_hat, kept.x_centred, kept.pre_acts, weights, dead, k_aux)
        return Loss(fvu + self.cfg.aux_alpha * aux, fvu, aux, out)
