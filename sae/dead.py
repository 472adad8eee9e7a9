"""Which latents are dead, and whether training is still alive: both without waiting for the device at every step."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from sae.encoder import EncoderSAE
from sae.sparse import SparseLatents

SYNC_EVERY = 16
"""Steps between the moments an accelerator is waited for, to see divergence and dead latents. On CPU: every step."""


class TrainingDiverged(Exception):
    """The loss stopped being a finite number, or nothing is left to train."""

    def __init__(self, step: int, cause: str) -> None:
        super().__init__(f"training diverged at step {step}: {cause}")
        self.step = step
        self.cause = cause


def sync_every(sae: EncoderSAE) -> int:
    """Steps between two looks at what is on the device."""
    return 1 if sae.W_dec.device.type == "cpu" else SYNC_EVERY


class Silence:
    """For each latent, the tokens seen since it was last active; those silent for longer than a threshold are dead."""

    def __init__(self, sae: EncoderSAE, threshold: int) -> None:
        self.tokens: Int[Tensor, " d_sae"] = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=sae.W_dec.device)
        self.threshold = threshold
        self.dead: Int[Tensor, " n_dead"] | None = None
        """Latents to revive, as of the last look; None for none."""
        self._every = sync_every(sae)
        self._room = sae.room

    def see(self, step: int, latents: SparseLatents) -> None:
        """Count a step's tokens.

        Raises:
            TrainingDiverged: no latent is alive.
        """
        active = latents.active.to(torch.int32)
        fired = torch.zeros_like(self.tokens, dtype=torch.int32).index_add_(0, latents.indices, active)
        self.tokens.add_(latents.n_rows).masked_fill_(fired > 0, 0)
        if step % self._every == 0:
            self.look(step)

    def look(self, step: int) -> None:
        """Find the dead latents, which waits for the device."""
        self._room.look()
        dead = (self.tokens > self.threshold).nonzero().squeeze(1)
        if len(dead) == len(self.tokens):
            raise TrainingDiverged(step + 1, f"all {len(dead)} latents are dead: lower lr or the sparsity")
        self.dead = dead if len(dead) else None

    def n_dead(self) -> Int[Tensor, ""]:
        """Latents silent for longer than the threshold."""
        return (self.tokens > self.threshold).sum()


class Watch:
    """Notices what is not finite, and whether the data or the training is to blame."""

    def __init__(self, sae: EncoderSAE) -> None:
        self._every = sync_every(sae)
        self._finite = torch.ones(2, dtype=torch.bool, device=sae.W_dec.device)
        """Whether all rows and losses since the last look were."""

    def see(self, step: int, x: Tensor, loss: Tensor) -> None:
        """Look at a step's rows and loss.

        Raises:
            ValueError: rows that are not finite.
            TrainingDiverged: a loss that is not, on rows that are.
        """
        if self._every == 1 and math.isfinite(loss.item()):
            # rows that are not finite have no finite variance, so they need no look of their own
            return
        self._finite &= torch.stack([x.isfinite().all(), loss.detach().isfinite()])
        if step % self._every:
            return
        x_finite, loss_finite = self._finite.tolist()
        when = f"{step + 1}" if self._every == 1 else f"{max(1, step + 2 - self._every)}-{step + 1}"
        if not x_finite:
            raise ValueError(f"batch of step {when} has NaN or infinite values: drop or repair those rows")
        if not loss_finite and bool((x == x[:1]).all()):
            raise ValueError(f"rows of step {when} are all equal: there is no variance to explain, drop the batch")
        if not loss_finite:
            raise TrainingDiverged(step + 1, f"loss={loss.item()} on finite data: lower lr, or look for equal rows")
