"""Training as a generator: Adam on `sae.loss`, one `Step` per batch; the caller logs, evaluates and stops.

The parameters are in units of raw x at every step. Rescaling the data so that mean ‖x − b‖² = d_in is the same, for
Adam, as stepping the biases in units of u = sqrt(mean ‖x − b‖² / d_in). That is what `normalise` does, so that there is
nothing to fold back and the SAE can be evaluated, or training stopped, after any step.
Recipe of Gao et al. 2024, arXiv:2406.04093, appendix A.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.base import SAE, Loss, SparseLatents
from sae.schedule import DecayShape, default_lr, lr_factor

SYNC_EVERY = 16
"""Steps between the moments an accelerator is waited for, to see divergence and dead latents. On CPU: every step."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; how many rows make a batch is the iterable's business."""

    n_steps: int
    """Optimiser steps, one batch each. `batches` must yield at least this many."""
    lr: float | None = None
    """Peak learning rate; None means 2e-4 / sqrt(d_sae / 2^14)."""
    warmup: float = 0.05
    """Fraction of the run over which the learning rate rises from 0."""
    decay: float = 0.2
    """Fraction of the run, at its end, over which the learning rate falls to 0."""
    decay_shape: DecayShape = "linear"
    """How it falls."""
    seed: int = 0
    """Seed of the initial decoder directions."""
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
        for name in ("warmup", "decay", "dead_after_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is a fraction of the run: choose 0 <= {name} <= 1")
        for name in ("lr", "grad_clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} is not positive and finite: choose {name} > 0, or None")


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

    def numbers(self) -> dict[str, int | float]:
        """All fields as Python numbers, for a log. Waits for the device."""
        return {name: v.item() if isinstance(v, Tensor) else v for name, v in self._asdict().items()}


class TrainingDiverged(Exception):
    """The loss stopped being a finite number."""

    def __init__(self, step: int, cause: str) -> None:
        super().__init__(f"training diverged at step {step}: {cause}")
        self.step = step
        self.cause = cause


def train(sae: SAE, batches: Iterable[Float[Tensor, "_rows _width"]], cfg: TrainConfig) -> Iterator[Step]:
    """Train `sae` in place, yielding after every step. Deterministic given seed, batches and number of threads."""
    source = _checked(batches, sae)
    head = _take_rows(source, cfg.init_rows)
    unit = _start(sae, head, cfg)
    groups = _parameter_groups(sae, unit)
    optimiser = torch.optim.Adam(groups, betas=cfg.betas, eps=cfg.eps, fused=sae.W_dec.device.type in ("cpu", "cuda"))
    silence = _Silence(sae, dead_threshold(cfg, len(head[0])))
    watch = _Watch(sae)
    n_tokens = 0
    peak_lr = cfg.lr or default_lr(sae.cfg.d_sae)
    for step, x in enumerate(_exactly(chain(head, source), cfg.n_steps)):
        lr = peak_lr * lr_factor(step, cfg.n_steps, cfg.warmup, cfg.decay, cfg.decay_shape)
        loss = sae.loss(x, silence.dead)
        watch.see(step, x, loss.total)
        _update(sae, loss, optimiser, lr, cfg.grad_clip)
        n_tokens += len(x)
        silence.see(step, loss.out.latents)
        yield _report(step, n_tokens, loss, silence, lr)


def dead_threshold(cfg: TrainConfig, batch_rows: int) -> int:
    """Tokens of silence that make a latent dead: `dead_after_tokens`, at most `dead_after_fraction` of the run."""
    return min(cfg.dead_after_tokens, math.ceil(cfg.dead_after_fraction * cfg.n_steps * batch_rows))


def _checked(batches: Iterable[Tensor], sae: SAE) -> Iterator[Tensor]:
    """The batches on the SAE's device and in its dtype, or a ValueError that says which batch is wrong and how."""
    for n, x in enumerate(batches):
        if x.ndim != 2 or x.shape[1] != sae.cfg.d_in:
            raise ValueError(f"batch {n} has shape {tuple(x.shape)} but d_in={sae.cfg.d_in}: pass [rows, d_in] tensors")
        if len(x) < 2:
            raise ValueError(
                f"batch {n} has {len(x)} rows and so no variance: pass 2 or more, drop a ragged last batch"
            )
        yield x.to(device=sae.W_dec.device, dtype=sae.W_dec.dtype)


def _take_rows(source: Iterator[Tensor], n_rows: int) -> list[Tensor]:
    """The first batches, until they hold `n_rows` rows."""
    head: list[Tensor] = []
    while sum(map(len, head)) < n_rows and (x := next(source, None)) is not None:
        head.append(x)
    if not head:
        raise ValueError("batches is empty: pass an iterable that yields at least n_steps tensors (and is not used up)")
    return head


def _exactly(source: Iterable[Tensor], n_steps: int) -> Iterator[Tensor]:
    """The first `n_steps` batches; fewer is an error, since the learning rate would not have come down."""
    n = 0
    for n, x in zip(range(1, n_steps + 1), source, strict=False):  # noqa: B007
        yield x
    if n < n_steps:
        raise ValueError(
            f"batches ended after {n} of n_steps={n_steps}: pass an iterable that repeats, or lower n_steps"
        )


def _start(sae: SAE, head: list[Tensor], cfg: TrainConfig) -> float:
    """Initialise from the first rows; return the unit in which to step the biases."""
    sample = torch.cat(head)
    if not sample.isfinite().all():
        n_bad = int((~sample.isfinite().all(dim=1)).sum())
        raise ValueError(f"{n_bad} of the first {len(sample)} rows have NaN or infinite values: drop or repair them")
    if cfg.initialise:
        sae.initialise(sample, torch.Generator().manual_seed(cfg.seed))
    deviation = sample.double() - sample.double().mean(dim=0)
    unit = deviation.square().mean().sqrt().item()
    if unit == 0:
        raise ValueError(f"the first {len(sample)} rows are all equal: there is no variance to explain")
    return unit if cfg.normalise else 1.0


def _parameter_groups(sae: SAE, unit: float) -> list[dict]:
    """One group for the matrices, whose steps have no unit, and one for the vectors, which are in units of x."""
    matrices = [p for p in sae.parameters() if p.ndim > 1]
    vectors = [p for p in sae.parameters() if p.ndim <= 1]
    return [{"params": matrices, "unit": 1.0}, {"params": vectors, "unit": unit}]


def _update(sae: SAE, loss: Loss, optimiser: torch.optim.Optimizer, lr: float, grad_clip: float | None) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.total.backward()
    sae.constrain_gradients()
    if grad_clip is not None:
        _clip_gradients(optimiser.param_groups, grad_clip)
    for group in optimiser.param_groups:
        group["lr"] = lr * group["unit"]
    optimiser.step()
    sae.constrain_weights()


def _clip_gradients(groups: list[dict], max_norm: float) -> None:
    """Scale gradients down to `max_norm`, each group measured in its own unit. No device sync."""
    gradients = [(p.grad, group["unit"]) for group in groups for p in group["params"] if p.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(g) * unit for g, unit in gradients])
    factor = (max_norm / torch.linalg.vector_norm(norms)).clamp(max=1.0)
    for gradient, _ in gradients:
        gradient.mul_(factor)


def _report(step: int, n_tokens: int, loss: Loss, silence: "_Silence", lr: float) -> Step:
    values = loss.out.latents.values.detach()
    l0 = (values > 0).sum() / len(values)
    n_dead = (silence.tokens > silence.threshold).sum()
    return Step(step + 1, n_tokens, loss.total.detach(), loss.fvu.detach(), l0, n_dead, lr)


class _Silence:
    """For each latent, the tokens seen since it was last active; `dead` is the mask to revive, None when empty."""

    def __init__(self, sae: SAE, threshold: int) -> None:
        self.tokens = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=sae.W_dec.device)
        self.threshold = threshold
        self._every = _sync_every(sae)
        self._any_dead = False

    def see(self, step: int, latents: SparseLatents) -> None:
        active = (latents.values.detach() > 0).flatten().to(torch.int32)
        fired = torch.zeros_like(self.tokens, dtype=torch.int32).index_add_(0, latents.indices.flatten(), active)
        self.tokens.add_(len(latents.values)).masked_fill_(fired > 0, 0)
        if step % self._every == 0:
            self._any_dead = bool((self.tokens > self.threshold).any())

    @property
    def dead(self) -> Bool[Tensor, " d_sae"] | None:
        return self.tokens > self.threshold if self._any_dead else None


class _Watch:
    """Notices what is not finite, and whether the data or the training is to blame."""

    def __init__(self, sae: SAE) -> None:
        self._every = _sync_every(sae)
        self._finite = torch.ones(2, dtype=torch.bool, device=sae.W_dec.device)

    def see(self, step: int, x: Tensor, loss: Tensor) -> None:
        self._finite &= torch.stack([x.isfinite().all(), loss.detach().isfinite()])
        if step % self._every:
            return
        x_finite, loss_finite = self._finite.tolist()
        when = f"{step + 1}" if self._every == 1 else f"{max(1, step + 2 - self._every)}-{step + 1}"
        if not x_finite:
            raise ValueError(f"batch of step {when} has NaN or infinite values: drop or repair those rows")
        if not loss_finite:
            raise TrainingDiverged(step + 1, f"loss={loss.item()} on finite data: lower lr, or look for equal rows")


def _sync_every(sae: SAE) -> int:
    return 1 if sae.W_dec.device.type == "cpu" else SYNC_EVERY
