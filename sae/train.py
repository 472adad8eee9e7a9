"""Training as a generator: Adam on `sae.loss`, one `Step` per batch; the caller logs, evaluates and stops.

The parameters are in units of raw x at every step. Rescaling the data so that mean ‖x − b‖² = d_in is the same, for
Adam, as stepping the biases in units of u = sqrt(mean ‖x − b‖² / d_in). That is what `normalise` does, so that there is
nothing to fold back and the SAE can be evaluated, or training stopped, after any step.
Recipe of Gao et al. 2024, arXiv:2406.04093, appendix A.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.dead import Silence, TrainingDiverged, Watch
from sae.encoder import EncoderSAE, spread
from sae.loss import Loss, Phase
from sae.optimisers import OPTIMISERS, AdamSettings, Optimisers
from sae.resample import resample
from sae.schedule import DECAYS, DecayShape, annealed_k, default_lr, lr_factor, rise

__all__ = ["Step", "TrainConfig", "Training", "TrainingDiverged", "TrainingState", "train"]

Batch = Tensor | tuple[Tensor, Tensor]
"""`[rows, d_in]`, or a pair of that and its targets `[rows, d_out]`."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; how many rows make a batch is the iterable's business."""

    n_steps: int
    """Optimiser steps, one batch each. `batches` must yield at least this many."""
    lr: float | None = None
    """Peak learning rate; None means 2e-4 / sqrt(d_sae / 2^14)."""
    optimiser: str = "adam"
    """`adam`, `muon` (for the matrices), or `schedule_free` (which wants decay=0)."""
    warmup: float = 0.05
    """Fraction of the run over which the learning rate rises from 0."""
    decay: float = 0.2
    """Fraction of the run, at its end, over which the learning rate falls to 0."""
    decay_shape: DecayShape = "linear"
    """How it falls."""
    sparsity_warmup: float = 0.05
    """Fraction of the run over which the weight of a sparsity penalty rises from 0, for variants that have one."""
    k_start: int | None = None
    """Latents per row to begin with, for variants that have a k; None begins with k itself."""
    k_anneal: float = 0.2
    """Fraction of the run over which k goes from k_start to its own value."""
    resample_at: tuple[float, ...] = ()
    """Fractions of the run after which dead latents are pointed at badly reconstructed rows: Bricken et al. 2023."""
    seed: int = 0
    """Seed of the initial decoder directions and of what is drawn while training."""
    initialise: bool = True
    """Start from `sae.initialise` on the first rows; False goes on from the parameters as they are."""
    init_rows: int = 8192
    """Rows, from the first batches, that give b_dec and the data's scale. They are trained on as well."""
    normalise: bool = True
    """Step the biases in units of the data's scale, which makes training independent of that scale."""
    dead_after_tokens: int = 10_000_000
    """A latent silent for this many tokens is dead and AuxK tries to revive it: Gao et al. 2024, appendix A.2."""
    dead_after_fraction: float = 0.05
    """Caps `dead_after_tokens` at this fraction of the run's tokens, so that short runs have an AuxK at all."""
    grad_clip: float | None = 1.0
    """Largest gradient norm, biases in units of the data's scale; None leaves gradients alone."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's averaging rates."""
    eps: float = 6.25e-10
    """Adam's epsilon, small as gradients of a fraction over many parameters are: Gao et al. 2024, appendix A."""

    def __post_init__(self) -> None:
        for name in ("n_steps", "init_rows", "dead_after_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not a count: choose {name} >= 1")
        for name in ("warmup", "decay", "sparsity_warmup", "k_anneal", "dead_after_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is a fraction of the run: choose 0 <= {name} <= 1")
        for name in ("lr", "grad_clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} is not positive and finite: choose {name} > 0, or None")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser={self.optimiser!r} is not known: choose one of {', '.join(OPTIMISERS)}")
        if self.k_start is not None and self.k_start < 1:
            raise ValueError(f"k_start={self.k_start} keeps nothing: choose k_start >= 1, or None")
        if any(not 0 < round(fraction * self.n_steps) < self.n_steps for fraction in self.resample_at):
            raise ValueError(
                f"resample_at={self.resample_at} of n_steps={self.n_steps} is before the first step or after the last: "
                "choose fractions between 0 and 1"
            )
        if self.decay_shape not in DECAYS:
            raise ValueError(f"decay_shape={self.decay_shape!r} is not known: choose one of {', '.join(DECAYS)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas} are not averaging rates: choose each from 0 to below 1")
        if not 0 < self.eps < math.inf:
            raise ValueError(f"eps={self.eps} is not positive and finite: choose eps > 0")


class Step(NamedTuple):
    """One optimiser step. Tensors stay on the device: reading one waits for it, keeping one does not."""

    step: int
    """Steps taken so far, from 1."""
    n_tokens: int
    """Rows trained on so far."""
    loss: Float[Tensor, ""]
    """What was minimised."""
    fvu: Float[Tensor, ""]
    """Fraction of variance unexplained in this batch, before the step."""
    l0: Float[Tensor, ""]
    """Mean number of active latents per row."""
    n_dead: Int[Tensor, ""]
    """Latents silent for longer than the dead threshold."""
    lr: float
    """Learning rate of this step."""
    parts: Mapping[str, Float[Tensor, ""]]
    """The variant's other terms of the loss by name, before their weights."""

    def numbers(self) -> dict[str, int | float]:
        """All fields as Python numbers, for a log. Waits for the device."""
        taken = set(self.parts) & set(self._fields)
        assert not taken, f"terms of the loss may not be called {taken}: a step has these already"
        fields = {**self._asdict(), **self.parts}
        del fields["parts"]
        return {name: v.item() if isinstance(v, Tensor) else v for name, v in fields.items()}


class TrainingState(NamedTuple):
    """All that a run needs to go on after a step, but for its data: the next batch is that of step `step` + 1."""

    step: int
    n_tokens: int
    dead_threshold: int
    """Tokens of silence that make a latent dead."""
    config: dict[str, Any]
    """The SAE's and the training's settings, to be compared."""
    tensors: dict[str, Tensor]
    """Weights, what the optimisers remember, tokens of silence, and the random generator, by name."""


def train(
    sae: EncoderSAE, batches: Iterable[Batch], cfg: TrainConfig, resume: TrainingState | None = None
) -> "Training":
    """Train `sae` in place: an iterator that yields after every step.

    Deterministic given seed, batches and number of threads, interruptions included.

    Args:
        sae: what is trained.
        batches: rows, or pairs of rows and targets. Where a run goes on, those that come after its last step.
        cfg: how.
        resume: to go on from, taken by `Training.state` of a run with the same settings.

    Raises:
        ValueError: settings that do not fit the SAE or the state, or rows that cannot be trained on.
        TrainingDiverged: the loss is not finite, or all latents are dead.
    """
    return Training(sae, batches, cfg, resume)


class Training(Iterator[Step]):
    """A run of `train`: steps as they are taken, and at each of them the state to go on from."""

    def __init__(
        self, sae: EncoderSAE, batches: Iterable[Batch], cfg: TrainConfig, resume: TrainingState | None = None
    ) -> None:
        """Nothing is read yet."""
        if sae.W_dec.dtype == torch.float16:
            raise ValueError(
                "float16 parameters overflow in training: use .float() or .bfloat16(); rows may be float16"
            )
        self.sae, self.cfg = sae, cfg
        self._k = _final_k(sae, cfg)
        self._source = _checked(batches, sae)
        self._generator = torch.Generator().manual_seed(cfg.seed)
        self._resampled_at = {round(fraction * cfg.n_steps) for fraction in cfg.resample_at}
        self._peak_lr = cfg.lr or default_lr(sae.cfg.d_sae)
        self.step, self.n_tokens = 0, 0
        self._begun = False
        if resume is not None:
            self._restore(resume)

    def __next__(self) -> Step:
        if not self._begun:
            self._begin()
        if self.step == self.cfg.n_steps:
            raise StopIteration
        x, target = self._next_batch()
        lr = self._peak_lr * lr_factor(
            self.step, self.cfg.n_steps, self.cfg.warmup, self.cfg.decay, self.cfg.decay_shape
        )
        self._optimisers.zero_grad()
        loss = self.sae.loss(x, self._phase(), target)
        self._watch.see(self.step, x, loss.total)
        self._update(loss, lr)
        self._silence.see(self.step, loss.latents)
        self.sae.observe(loss)
        self.step, self.n_tokens = self.step + 1, self.n_tokens + len(x)
        if self.step in self._resampled_at:
            self._resample(x, target)
        return Step(
            self.step, self.n_tokens, loss.total.detach(), loss.fvu, loss.latents.l0(), self._silence.n_dead(), lr,
            loss.parts,
        )  # fmt: skip

    def state(self) -> TrainingState:
        """All that is needed to go on after the last step.

        Raises:
            ValueError: no step was taken.
            TrainingDiverged: parameters are not finite.
        """
        if not self._begun:
            raise ValueError("training has no state before its first step: take one")
        tensors = {
            **{f"sae.{name}": value for name, value in self.sae.state_dict().items()},
            **{f"optimiser.{name}": value for name, value in self._optimisers.tensors().items()},
            "silence": self._silence.tokens,
            "generator": self._generator.get_state(),
        }
        copies = {name: value.detach().cpu().clone() for name, value in tensors.items()}
        wild = [name for name, value in copies.items() if name.startswith("sae.") and not value.isfinite().all()]
        if wild:
            raise TrainingDiverged(self.step, f"{', '.join(wild)} are not finite: lower lr")
        return TrainingState(self.step, self.n_tokens, self._silence.threshold, settings(self.sae, self.cfg), copies)

    def _begin(self) -> None:
        """Initialise from the first rows."""
        head = _take_rows(self._source, self.cfg.init_rows)
        _start(self.sae, head, self.cfg)
        self._source = chain(head, self._source)
        self._build(dead_threshold(self.cfg, len(head[0][0])))

    def _build(self, threshold: int) -> None:
        cfg = self.cfg
        self._optimisers = Optimisers(cfg.optimiser, self.sae, AdamSettings(betas=cfg.betas, eps=cfg.eps))
        self._silence = Silence(self.sae, threshold)
        self._watch = Watch(self.sae)
        self._begun = True

    @torch.no_grad()
    def _restore(self, state: TrainingState) -> None:
        check_same(settings(self.sae, self.cfg), state.config)
        self.step, self.n_tokens = state.step, state.n_tokens
        # copying into the existing parameters keeps their memory layout, W_enc's transposed one included
        self.sae.load_state_dict(_under(state.tensors, "sae."))
        self._build(state.dead_threshold)
        self._optimisers.restore(_under(state.tensors, "optimiser."))
        self._silence.tokens.copy_(state.tensors["silence"])
        self._silence.look(state.step - 1)
        self._generator.set_state(state.tensors["generator"])

    def _next_batch(self) -> tuple[Tensor, Tensor | None]:
        try:
            return next(self._source)
        except StopIteration:
            raise ValueError(
                f"batches ended after {self.step} of n_steps={self.cfg.n_steps}: "
                "pass an iterable that repeats, or lower n_steps"
            ) from None

    def _phase(self) -> Phase:
        cfg = self.cfg
        k = None
        if cfg.k_start is not None and self._k is not None:
            k = annealed_k(self.step, cfg.n_steps, cfg.k_start, self._k, cfg.k_anneal)
        return Phase(self._silence.dead, rise(self.step, cfg.n_steps, cfg.sparsity_warmup), k, self._generator)

    def _update(self, loss: Loss, lr: float) -> None:
        loss.total.backward()
        self.sae.constrain_gradients()
        self._optimisers.step(lr, self.cfg.grad_clip)
        self.sae.constrain_weights()
        self._optimisers.constrain()

    def _resample(self, x: Tensor, target: Tensor | None) -> None:
        self._silence.look(self.step)
        if self._silence.dead is not None:
            changed = resample(self.sae, x, self._silence.dead, self._generator, target)
            self._optimisers.forget(changed)
            self._silence.tokens.index_fill_(0, changed, 0)
            self._silence.look(self.step)


def dead_threshold(cfg: TrainConfig, batch_rows: int) -> int:
    """Tokens of silence that make a latent dead: `dead_after_tokens`, at most `dead_after_fraction` of the run."""
    return min(cfg.dead_after_tokens, math.ceil(cfg.dead_after_fraction * cfg.n_steps * batch_rows))


def settings(sae: EncoderSAE, cfg: TrainConfig) -> dict[str, Any]:
    """All settings of a run by name."""
    return {"variant": type(sae).__name__, **dataclasses.asdict(sae.cfg), **dataclasses.asdict(cfg)}


def check_same(now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Raises: ValueError: settings differ; it says which, and how."""
    changed = [
        f"{name}={now.get(name)!r} (was {before.get(name)!r})"
        for name in sorted({*now, *before})
        if _plain(now.get(name)) != _plain(before.get(name))
    ]
    if changed:
        raise ValueError(f"cannot go on with other settings: {', '.join(changed)}: restore them, or start a new run")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _final_k(sae: EncoderSAE, cfg: TrainConfig) -> int | None:
    """The k that annealing ends at; None for a variant without one."""
    k = getattr(sae.cfg, "k", None)
    if cfg.k_start is None:
        return k
    if k is None:
        raise ValueError(f"k_start={cfg.k_start}, but {type(sae).__name__} has no k to anneal: leave k_start out")
    if cfg.k_start > sae.cfg.d_sae:
        raise ValueError(f"k_start={cfg.k_start} exceeds d_sae={sae.cfg.d_sae}: choose k_start <= d_sae")
    return k


def _checked(batches: Iterable[Batch], sae: EncoderSAE) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The batches on the SAE's device and in its dtype, or a ValueError that says which batch is wrong and how."""
    for n, batch in enumerate(batches):
        x, target = batch if isinstance(batch, tuple) else (batch, None)
        _check_width(n, x, "d_in", sae.cfg.d_in)
        if len(x) < 2:
            raise ValueError(
                f"batch {n} has {len(x)} rows and so no variance: pass 2 or more, drop a ragged last batch"
            )
        if target is not None:
            _check_width(n, target, "d_out", sae.cfg.width_out)
            if len(target) != len(x):
                raise ValueError(f"batch {n} has {len(x)} rows and {len(target)} targets: pass one for each row")
            target = target.to(device=sae.W_dec.device, dtype=sae.W_dec.dtype)
        yield x.to(device=sae.W_dec.device, dtype=sae.W_dec.dtype), target


def _check_width(n: int, x: Tensor, name: str, width: int) -> None:
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(f"batch {n} has shape {tuple(x.shape)} but {name}={width}: pass [rows, {name}] tensors")


def _take_rows(source: Iterator[tuple[Tensor, Tensor | None]], n_rows: int) -> list[tuple[Tensor, Tensor | None]]:
    """The first batches, until they hold `n_rows` rows."""
    head: list[tuple[Tensor, Tensor | None]] = []
    while sum(len(x) for x, _ in head) < n_rows and (batch := next(source, None)) is not None:
        head.append(batch)
    if not head:
        raise ValueError("batches is empty: pass an iterable that yields at least n_steps tensors (and is not used up)")
    return head


def _start(sae: EncoderSAE, head: list[tuple[Tensor, Tensor | None]], cfg: TrainConfig) -> None:
    """Initialise from the first rows, or take only the data's unit from them."""
    sample = torch.cat([x for x, _ in head])
    if not sample.isfinite().all():
        n_bad = int((~sample.isfinite().all(dim=1)).sum())
        raise ValueError(f"{n_bad} of the first {len(sample)} rows have NaN or infinite values: drop or repair them")
    unit = spread(sae.enter(sample))
    if unit.item() == 0:
        raise ValueError(f"the first {len(sample)} rows are all equal: there is no variance to explain")
    if cfg.initialise:
        targets = [target for _, target in head if target is not None]
        sae.initialise(sample, torch.Generator().manual_seed(cfg.seed), torch.cat(targets) if targets else None)
    elif cfg.normalise:
        sae.unit.copy_(unit)
    if not cfg.normalise:
        sae.unit.fill_(1.0)
