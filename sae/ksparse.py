"""Keeping the largest: k latents in each row (TopK), or k · batch in the whole batch (BatchTopK).

TopK: Gao et al. 2024, arXiv:2406.04093. BatchTopK: Bussmann et al. 2024, arXiv:2412.06410. In a batch, rows share a
budget, so that a row's latents depend on its neighbours; at inference a threshold takes its place: the running mean of
the smallest value that a batch kept.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sae.encoder import EncoderConfig, EncoderSAE, Kept, Watch
from sae.jumprelu import JumpReLU, JumpReLUConfig
from sae.largest import above, batch_largest, row_largest
from sae.loss import Loss, Phase
from sae.sparse import Pattern

Pool = Literal["row", "batch"]

THRESHOLD_RATE = 0.1
"""Weight of a new batch in the running mean of thresholds: about the last ten steps count. The smallest of some
thousands of kept values hardly varies from batch to batch, but falls while training goes on: a slower mean lags."""
HINT = 0.7
"""Share of the last thresholds above which candidates of a batch are looked for."""


@dataclass(frozen=True, kw_only=True)
class KSparseConfig(EncoderConfig):
    """What all variants share that keep the largest pre-activations."""

    k: int = 32
    """Latents kept per row, or per row in the mean of a batch; one whose pre-activation is not positive has value 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"k={self.k} keeps nothing: choose k >= 1")
        if self.k > self.d_sae:
            raise ValueError(f"k={self.k} exceeds d_sae={self.d_sae}: choose k <= d_sae")

    @property
    def pool(self) -> Pool:
        """What shares the budget of k latents a row."""
        return "row"


@dataclass(frozen=True, kw_only=True)
class PooledConfig(KSparseConfig):
    """What variants share that can keep the largest of either."""

    keep: Pool = "row"
    """What shares the budget of k latents a row: each `row` (TopK) or the `batch` (BatchTopK)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep not in get_args(Pool):
            raise ValueError(f"keep={self.keep!r} is not known: choose row or batch")

    @property
    def pool(self) -> Pool:
        """As chosen."""
        return self.keep


K = TypeVar("K", bound=KSparseConfig)


class KSparse(EncoderSAE[K]):
    """The largest pre-activations of a row or of a batch, after ReLU; abstract in what is done with them."""

    config_cls = KSparseConfig
    is_jumprelu: ClassVar[bool] = False
    """Whether with a threshold it is an encoder, a jump and a decoder, and nothing else."""
    threshold: Tensor
    """Only where a batch shares its budget: what is above it is kept at inference. 0 before the first batch."""

    def __init__(self, cfg: K) -> None:
        super().__init__(cfg)
        if cfg.pool == "batch":
            self.register_buffer("threshold", torch.zeros(()))

    @property
    def scaled(self) -> tuple[str, ...]:
        """The threshold too, where there is one."""
        return (*super().scaled, "threshold") if self.cfg.pool == "batch" else super().scaled

    def k_at(self, phase: Phase | None) -> int:
        """Latents per row: the config's, but while k is annealed."""
        return (phase.k if phase else None) or self.cfg.k

    def select(self, pre_acts: Float[Tensor, "rows {self.cfg.d_sae}"], phase: Phase | None) -> Pattern:
        """Each row's k largest, or at inference all above the threshold."""
        if self.cfg.pool == "row":
            return Pattern.of_table(row_largest(pre_acts, self.k_at(phase)), self.cfg.d_sae)
        return above(pre_acts, self.threshold)

    def handicap(self) -> Float[Tensor, " {self.cfg.d_sae}"] | None:
        """What a latent counts for: its decoder row's norm, where that is free."""
        return self.importance()

    def keep(
        self, x_centred: Float[Tensor, "batch {self.cfg.d_in}"], phase: Phase | None, watch: Watch | None = None
    ) -> Kept:
        """In training, a batch's k · batch largest; otherwise block by block."""
        if phase is None or self.cfg.pool == "row":
            return super().keep(x_centred, phase, watch)
        n, weights = self.k_at(phase) * len(x_centred), self.handicap()
        pattern, pre_acts = batch_largest(
            lambda: self.pre_act_blocks(x_centred, weights), len(x_centred), n, HINT * self.threshold
        )
        return Kept(pattern, pre_acts if weights is None else pre_acts / weights[pattern.indices])

    @torch.no_grad()
    def as_jumprelu(self) -> JumpReLU:
        """The JumpReLU that this is at inference: a fixed threshold for each latent.

        Raises:
            ValueError: rows have a budget of their own, or no batch was seen yet; or x is mapped to something else.
        """
        if self.cfg.pool == "row":
            raise ValueError(f"{type(self).__name__} keeps k={self.cfg.k} in each row: no threshold does that")
        if not self.threshold > 0:
            raise ValueError("the threshold is not known before a batch was trained on: train first")
        if not self.is_jumprelu:
            raise ValueError(f"{type(self).__name__} is not only an encoder and a decoder: no JumpReLU is the same")
        settings = {field.name: getattr(self.cfg, field.name) for field in dataclasses.fields(EncoderConfig)}
        jump = JumpReLU(JumpReLUConfig(**settings, target_l0=float(self.cfg.k))).to(self.W_dec.dtype)
        for name in ("W_enc", "b_enc", "W_dec", "b_dec", "unit"):
            getattr(jump, name).copy_(getattr(self, name))
        weights = self.handicap()
        threshold = self.threshold if weights is None else self.threshold / weights
        jump.log_threshold.copy_((threshold / self.unit).log().expand(self.cfg.d_sae))
        return jump

    @torch.no_grad()
    def observe(self, loss: Loss) -> None:
        """Move the threshold towards the smallest value that this batch kept."""
        if self.cfg.pool == "row":
            return
        if not len(loss.pre_acts):
            return
        values = self.weighed(loss.pre_acts, loss.latents.pattern)
        smallest = values.masked_fill(values <= 0, torch.inf).min()
        moved = torch.lerp(self.threshold, smallest, THRESHOLD_RATE)
        moved = torch.where(self.threshold > 0, moved, smallest)
        self.threshold.copy_(torch.where(smallest.isfinite(), moved, self.threshold))
