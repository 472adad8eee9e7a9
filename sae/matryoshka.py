"""Matryoshka: nested dictionaries in one; the first m latents alone must reconstruct too, for several m.

Loss: the mean over prefixes m of FVU(reconstruction from latents below m), plus aux_alpha · AuxK. Latents are chosen
once, for the whole dictionary. All prefixes come from one cumulative pass. Bussmann et al. 2025, arXiv:2503.17547;
prefixes drawn anew at every step: Nabeshima 2024, "Matryoshka Sparse Autoencoders", LessWrong.
"""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.encoder import Encoded, Reconstruction
from sae.ksparse import KSparse, Pool, PooledConfig
from sae.loss import Phase
from sae.sparse import Nesting, Pattern

HALVINGS = 4
"""The default prefixes: the whole dictionary, and halved so many times."""
PARETO = 0.5
"""Exponent of the distribution of sampled prefixes: short ones are drawn more often than long ones."""


@dataclass(frozen=True, kw_only=True)
class MatryoshkaConfig(PooledConfig):
    """A Matryoshka SAE."""

    keep: Pool = "batch"
    """What shares the budget of k latents a row: each `row` (TopK) or the `batch` (BatchTopK)."""
    prefixes: tuple[int, ...] = ()
    """Sizes of the nested dictionaries, rising; d_sae itself is added. Empty: 1/16, 1/8, 1/4 and 1/2 of d_sae."""
    n_sampled: int = 0
    """Instead of fixed prefixes, draw so many at every step, short ones more often than long ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.prefixes) != sorted(set(self.prefixes)) or any(not 1 <= m <= self.d_sae for m in self.prefixes):
            raise ValueError(
                f"prefixes={self.prefixes} do not rise from 1 to d_sae={self.d_sae}: order them, each once"
            )
        if self.n_sampled < 0:
            raise ValueError(f"n_sampled={self.n_sampled} is negative: choose n_sampled >= 0")
        if self.n_sampled and self.prefixes:
            raise ValueError(f"n_sampled={self.n_sampled} and prefixes={self.prefixes} exclude each other: choose one")

    @property
    def fixed(self) -> tuple[int, ...]:
        """The prefixes of every step, the whole dictionary last."""
        asked = self.prefixes or tuple(self.d_sae >> n for n in range(HALVINGS, 0, -1))
        return tuple(sorted({m for m in asked if m > 0} | {self.d_sae}))


@final
class Matryoshka(KSparse[MatryoshkaConfig]):
    """Nested dictionaries: every prefix of the latents reconstructs."""

    config_cls = MatryoshkaConfig
    is_jumprelu: ClassVar[bool] = True

    _fixed: Tensor

    def __init__(self, cfg: MatryoshkaConfig) -> None:
        super().__init__(cfg)
        self.register_buffer("_fixed", torch.tensor(cfg.fixed), persistent=False)

    def select(self, pre_acts: Float[Tensor, "rows {self.cfg.d_sae}"], phase: Phase | None) -> Pattern:
        """The largest, in the order of the dictionary within a row."""
        pattern = super().select(pre_acts, phase)
        if self.cfg.pool == "batch":
            return pattern
        table = pattern.indices.view(len(pattern), self.k_at(phase)).sort(dim=1).values
        return Pattern.of_table(table, self.cfg.d_sae)

    def reconstruct(self, encoded: Encoded, target: Tensor, total: Tensor, phase: Phase) -> Reconstruction:
        """The mean FVU over the prefixes."""
        sizes = self.prefixes(phase.generator).to(target.device, non_blocking=True)
        group = torch.bucketize(encoded.latents.indices, sizes[:-1], right=True)
        weights = target.new_full((len(sizes),), 1 / len(sizes))
        return self.rebuilt(encoded.latents, target, total, phase, Nesting(group, weights))

    def prefixes(self, generator: torch.Generator | None = None) -> Int[Tensor, " n_prefixes"]:
        """The prefixes of a step, rising, the whole dictionary last."""
        if not self.cfg.n_sampled:
            return self._fixed
        # the truncated Pareto distribution on [1, d_sae], by its inverse
        drawn = torch.rand(self.cfg.n_sampled, generator=generator, dtype=torch.float64)
        longest = 1 - self.cfg.d_sae**-PARETO
        sizes = (1 - drawn * longest).pow(-1 / PARETO).long().clamp(1, self.cfg.d_sae)
        return torch.tensor(sorted({*sizes.tolist(), self.cfg.d_sae}))
