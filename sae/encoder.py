"""SAEs with an encoder, trained by gradients: pre_acts = (x − b_dec) W_enc + b_enc, of which each row keeps a few.

The pre-activations are computed a block of rows at a time and thrown away once a block's latents are chosen; from
there on everything is sparse. Bricken et al. 2023, transformer-circuits.pub/2023/monosemantic-features; Gao et al.
2024, arXiv:2406.04093.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sae import sparse
from sae.auxk import auxk_loss, default_k_aux
from sae.base import SAE, SAEConfig
from sae.centre import CENTRES, Centre
from sae.loss import STEADY, Loss, Phase, Term, total_of, variance
from sae.room import Room
from sae.sparse import Nesting, Pattern, SparseLatents

BLOCK_ENTRIES = 8_000_000
"""Pre-activations computed at a time on a CPU: below the size from which every allocation is new memory to clear."""

FILLER = -1e30
"""Pre-activation of entries that only fill up: far below any threshold, and finite."""

DecoderNorm = Literal["unit", "free"]
Watch = Callable[[Tensor, Pattern], None]
"""Takes the pre-activations `[rows, d_sae]` of a block, as latents compete with them, and which of them are kept. It
may write over them."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(SAEConfig):
    """What all variants trained by gradients share."""

    decoder_norm: DecoderNorm = "unit"
    """`unit`: decoder rows are kept at norm 1 and their gradients projected. `free`: rows have any norm, and latents
    compete for their place, and pay an L1 or tanh penalty, by their value times that norm."""
    b_dec_init: Centre = "mean"
    """What b_dec starts from: the arithmetic `mean` of the first rows, their `geometric_median`, or `zero`."""
    aux_alpha: float = 1 / 32
    """Weight of the AuxK loss: Gao et al. 2024, appendix A.2. 0 turns it off."""
    k_aux: int | None = None
    """Dead latents used per row by AuxK; None means d_in // 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_norm not in get_args(DecoderNorm):
            raise ValueError(f"decoder_norm={self.decoder_norm!r} is not known: choose unit or free")
        if self.b_dec_init not in CENTRES:
            raise ValueError(f"b_dec_init={self.b_dec_init!r} is not known: choose one of {', '.join(CENTRES)}")
        if not 0 <= self.aux_alpha < math.inf:
            raise ValueError(f"aux_alpha={self.aux_alpha} is negative or not finite: choose aux_alpha >= 0")
        if self.k_aux is not None and self.k_aux < 1:
            raise ValueError(f"k_aux={self.k_aux} revives nothing: choose k_aux >= 1, or aux_alpha=0 to turn AuxK off")


E = TypeVar("E", bound=EncoderConfig)


class Kept(NamedTuple):
    """Which latents are kept, and their pre-activations without gradient."""

    pattern: Pattern
    pre_acts: Float[Tensor, " kept"]


class Encoded(NamedTuple):
    """One encoding, with what the losses reuse."""

    x_centred: Float[Tensor, "batch d_in"]
    pre_acts: Float[Tensor, " kept"]
    """Of the kept latents, differentiable."""
    latents: SparseLatents


class Reconstruction(NamedTuple):
    """How well the latents stand for their target."""

    loss: Float[Tensor, ""]
    """What is minimised."""
    fvu: Float[Tensor, ""]
    """Of the final reconstruction, without gradient."""
    error: Float[Tensor, "batch d_out"] | None
    """x_hat − target, without gradient; None where no latent is dead."""
    latents: SparseLatents
    """Those of the final reconstruction."""


class EncoderSAE(SAE[E]):
    """Encoder, decoder, and the constraints on them; abstract in which latents a row keeps."""

    config_cls = EncoderConfig

    def __init__(self, cfg: E) -> None:
        super().__init__(cfg)
        # a transposed view: the encoder product and its sparse gradient both want latents as contiguous rows
        self.W_enc = nn.Parameter(torch.zeros(cfg.d_sae, cfg.d_in).t())
        self.b_enc = nn.Parameter(torch.zeros(cfg.d_sae))
        self.room = Room()
        """For latents whose number varies, where it is not waited for."""
        self._draw_directions(torch.Generator().manual_seed(0))

    @property
    def scaled(self) -> tuple[str, ...]:
        """The encoder's biases too."""
        return (*super().scaled, "b_enc")

    @property
    def latent_axis(self) -> Mapping[str, int]:
        """Which axis of a parameter counts latents, for all that have one."""
        return {"W_enc": 1, "W_dec": 0, "b_enc": 0}

    @abstractmethod
    def select(self, pre_acts: Float[Tensor, "rows {self.cfg.d_sae}"], phase: Phase | None) -> Pattern:
        """Which latents each row keeps; `phase` is None at inference. Not differentiated."""

    def activate(self, pre_acts: Float[Tensor, " kept"], pattern: Pattern) -> Float[Tensor, " kept"]:
        """Values of kept latents from their pre-activations."""
        return torch.relu(pre_acts)

    def penalties(self, encoded: Encoded, target: Tensor, total: Tensor, phase: Phase) -> Mapping[str, Term]:
        """The variant's own terms of the loss, besides AuxK; `total` is the variance of the targets."""
        return {}

    @property
    def b_pre(self) -> Tensor:
        """What is subtracted from x before the encoder."""
        return self.b_dec

    def encode(self, x: Float[Tensor, "batch {self.cfg.d_in}"]) -> SparseLatents:
        """The kept latents of each row."""
        return self._encode(self.enter(x), None).latents

    def loss(
        self,
        x: Float[Tensor, "batch {self.cfg.d_in}"],
        phase: Phase = STEADY,
        target: Float[Tensor, "batch {self.cfg.width_out}"] | None = None,
    ) -> Loss:
        """What training minimises on `x`; `target` is what is reconstructed, if not x itself."""
        target, x = self.enter_target(x if target is None else target), self.enter(x)
        encoded = self._encode(x, phase)
        beside = self.bypass(x)
        wanted = target if beside is None else target - beside
        variance_of_target = variance(target)
        rebuilt = self.reconstruct(encoded, wanted, variance_of_target, phase)
        terms = {**self.penalties(encoded, target, variance_of_target, phase), **self._auxk(encoded, rebuilt, phase)}
        parts = {name: term.value.detach() for name, term in terms.items()}
        total = total_of(rebuilt.loss, terms)
        return Loss(total, rebuilt.fvu.detach(), parts, rebuilt.latents, encoded.pre_acts.detach())

    def reconstruct(self, encoded: Encoded, target: Tensor, total: Tensor, phase: Phase) -> Reconstruction:
        """The fraction of the variance `total` that the decoded latents leave unexplained."""
        return self.rebuilt(encoded.latents, target, total, phase)

    def rebuilt(
        self, latents: SparseLatents, target: Tensor, total: Tensor, phase: Phase, nesting: Nesting | None = None
    ) -> Reconstruction:
        """The latents decoded, or nested reconstructions from them; errors are kept where a latent is dead."""
        keep_error = phase.dead is not None
        found = sparse.squared_error(latents, self.W_dec, self.b_dec, target, nesting, keep_error=keep_error)
        return Reconstruction(found.total / total, found.final / total.detach(), found.error, latents)

    @torch.no_grad()
    def observe(self, loss: Loss) -> None:
        """Take note of a training step; called once after each."""

    @torch.no_grad()
    def initialise(
        self,
        x_sample: Float[Tensor, "rows {self.cfg.d_in}"],
        generator: torch.Generator | None = None,
        target_sample: Float[Tensor, "rows {self.cfg.width_out}"] | None = None,
    ) -> None:
        """Random unit decoder rows, W_enc = W_decᵀ, b_enc = 0, b_dec the centre of the sample, and the data's unit."""
        self._draw_directions(generator)
        self.b_enc.zero_()
        self.b_dec.copy_(CENTRES[self.cfg.b_dec_init](x_sample if target_sample is None else target_sample))
        self.unit.copy_(spread(x_sample))

    @torch.no_grad()
    def constrain_gradients(self) -> None:
        """Remove from each decoder row's gradient the part along the row, which `constrain_weights` would undo."""
        if self.W_dec.grad is not None and self.cfg.decoder_norm == "unit":
            along = sparse.row_dot(self.W_dec.grad, self.W_dec)
            self.W_dec.grad.addcmul_(along.unsqueeze(1), self.W_dec, value=-1)

    @torch.no_grad()
    def constrain_weights(self) -> None:
        """Scale each decoder row to norm 1."""
        if self.cfg.decoder_norm == "unit":
            to_unit_norm_(self.W_dec)

    @torch.no_grad()
    def point(
        self,
        latents: Int[Tensor, " n"],
        encoder_rows: Float[Tensor, "n {self.cfg.d_in}"],
        decoder_rows: Float[Tensor, "n {self.cfg.width_out}"],
    ) -> None:
        """Give some latents other weights, as new ones have otherwise."""
        self.W_enc.index_copy_(1, latents, encoder_rows.t())
        self.b_enc.index_fill_(0, latents, 0.0)
        self.W_dec.index_copy_(0, latents, decoder_rows)

    def importance(self) -> Float[Tensor, " {self.cfg.d_sae}"] | None:
        """What a latent's value counts for: the norm of its decoder row; None where that is 1."""
        return None if self.cfg.decoder_norm == "unit" else torch.linalg.vector_norm(self.W_dec, dim=1)

    def weighed(self, values: Float[Tensor, " kept"], pattern: Pattern) -> Float[Tensor, " kept"]:
        """Values times what their latents count for."""
        weights = self.importance()
        return values if weights is None else values * weights[pattern.indices]

    def handicap(self) -> Float[Tensor, " {self.cfg.d_sae}"] | None:
        """What pre-activations are multiplied with where latents compete with each other; None for nothing."""
        return None

    @torch.no_grad()
    def encode_watched(self, x: Float[Tensor, "batch {self.cfg.d_in}"], watch: Watch) -> SparseLatents:
        """What `encode` gives, while `watch` sees the pre-activations of all latents, a block of rows at a time."""
        kept = self.keep(self.enter(x) - self.b_pre, None, watch)
        return SparseLatents(self.activate(kept.pre_acts, kept.pattern), kept.pattern)

    def keep(
        self, x_centred: Float[Tensor, "batch {self.cfg.d_in}"], phase: Phase | None, watch: Watch | None = None
    ) -> Kept:
        """Choose each row's latents, a block of rows at a time."""
        weights = self.handicap()
        patterns, entries = [], []
        for block in self.pre_act_blocks(x_centred, weights):
            pattern = self.select(block, phase)
            patterns.append(pattern)
            entries.append(_entries(block, pattern))
            if watch is not None:
                watch(block, pattern)
        pattern, values = Pattern.cat(patterns), torch.cat(entries)
        return Kept(pattern, values if weights is None else values / weights[pattern.indices])

    def pre_act_blocks(
        self, x_centred: Tensor, weights: Float[Tensor, " {self.cfg.d_sae}"] | None = None
    ) -> Iterator[Float[Tensor, "rows {self.cfg.d_sae}"]]:
        """Pre-activations, times `weights` if given, block by block; a block is overwritten by the next one."""
        size = block_rows(x_centred, self.cfg.d_sae)
        buffer = x_centred.new_empty(size, self.cfg.d_sae)
        for start in range(0, max(1, len(x_centred)), size):  # no rows are one empty block
            rows = x_centred[start : start + size]
            block = torch.addmm(self.b_enc, rows, self.W_enc, out=buffer[: len(rows)])
            yield block if weights is None else block.mul_(weights)

    def _encode(self, x: Tensor, phase: Phase | None) -> Encoded:
        with torch.no_grad():
            x_centred = x - self.b_pre
            kept = self.keep(x_centred, phase)
        pre_acts = sparse.take_pre_acts(x, self.W_enc, self.b_enc, self.b_pre, x_centred, kept.pre_acts, kept.pattern)
        return Encoded(x_centred, pre_acts, SparseLatents(self.activate(pre_acts, kept.pattern), kept.pattern))

    def _auxk(self, encoded: Encoded, rebuilt: Reconstruction, phase: Phase) -> dict[str, Term]:
        if not self.cfg.aux_alpha:
            return {}
        if phase.dead is None or rebuilt.error is None:
            return {"aux": Term(rebuilt.fvu.new_zeros(()), 0.0)}
        weights = (self.W_enc, self.b_enc, self.W_dec)
        k_aux = self.cfg.k_aux or default_k_aux(self.cfg.d_in)
        aux = auxk_loss(-rebuilt.error, encoded.x_centred, weights, phase.dead, k_aux)
        return {"aux": Term(aux, self.cfg.aux_alpha)}

    @torch.no_grad()
    def _draw_directions(self, generator: torch.Generator | None) -> None:
        self.W_dec.copy_(self._random_directions(self.cfg.width_out, generator))
        self.W_enc.copy_(self.W_dec.t())

    def _random_directions(self, width: int, generator: torch.Generator | None) -> Float[Tensor, "d_sae width"]:
        # drawn on the generator's device, so that one seed gives one SAE wherever it is trained
        device = generator.device if generator else self.W_dec.device
        shape = (self.cfg.d_sae, width)
        return to_unit_norm_(torch.randn(shape, generator=generator, device=device, dtype=torch.float32))


def _entries(block: Float[Tensor, "rows d_sae"], pattern: Pattern) -> Float[Tensor, " kept"]:
    """The entries of a block that are kept."""
    values = block.flatten()[pattern.rows * pattern.d_sae + pattern.indices]
    if pattern.n_real is None:
        return values
    return torch.where(torch.arange(len(values), device=values.device) < pattern.n_real, values, FILLER)


def to_unit_norm_(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Scale each row to norm 1, in place."""
    return rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(1e-12))


def block_rows(x: Tensor, d_sae: int) -> int:
    """Rows whose pre-activations are computed at a time, the same in every block: all of them on an accelerator."""
    most = max(1, BLOCK_ENTRIES // d_sae)
    n_blocks = max(1, math.ceil(len(x) / most)) if x.device.type == "cpu" else 1
    return max(1, math.ceil(len(x) / n_blocks))


def spread(x: Float[Tensor, "rows d"]) -> Float[Tensor, ""]:
    """sqrt of the mean square deviation of an entry from its column's mean, in float64."""
    rows = x.double()
    return (rows - rows.mean(dim=0)).square().mean().sqrt()
