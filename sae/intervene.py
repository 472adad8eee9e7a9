"""Edits of activations through latents: what is changed, where, and what stays.

An edit moves x along decoder rows by what the latents lack: x' = x + Σ_i (a'_i − a_i) · W_dec[i] (`delta`), so that
the SAE's error x − x_hat(x) passes through untouched (Templeton et al. 2024, transformer-circuits.pub/2024/
scaling-monosemanticity, "Feature steering"). `full` puts the reconstruction x_hat(a') in its place and costs that
error (SAUCE, arXiv:2503.14530). Where: on every position, on those at or after one that meets a condition, or on those
that meet it (three tiers: Goyal et al. 2025, arXiv:2505.14536; causal, so that no decision reads a later token).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.base import SAE

Edit = Callable[[Tensor, Tensor, bool], Tensor]
"""`[batch, pos, d_in]` activations, `[batch, pos]` bool where they may be touched, and whether the sequences go on from
the call before; to activations of the same shape."""


class Operation(NamedTuple):
    """What is done to latents."""

    about: str
    changed: Callable[[Tensor, Tensor, Tensor], Tensor] | None
    """From the change so far, the latents' values `[rows, n]` and the wanted values `[n]` to the change; None where x
    is moved whatever its latents are."""
    reads: bool
    """Whether it needs the latents' values."""
    takes_value: bool


OPERATIONS: Mapping[str, Operation] = {
    "clamp": Operation("hold at a value", lambda c, z, v: v - z, reads=True, takes_value=True),
    "add": Operation("add a value", lambda c, z, v: c + v, reads=False, takes_value=True),
    "scale": Operation("multiply by a gain", lambda c, z, v: (z + c) * v - z, reads=True, takes_value=True),
    "ablate": Operation("set to 0", lambda c, z, v: -z, reads=True, takes_value=False),
    "project_out": Operation("remove all of x along decoder rows", None, reads=False, takes_value=False),
}
"""By the name used on the command line. Edits of one latent compose in their order; projections come last."""
WHEN = ("always", "input", "token")
"""On every position; from the first on at which the condition is met; on those at which it is met."""
DECODE = ("delta", "full")
RANK_TOLERANCE = 1e-6
"""Directions of a set of rows that are shorter, as a share of the longest, are rounding."""


@dataclass(frozen=True, kw_only=True)
class InterventionConfig:
    """One edit of some latents."""

    latents: tuple[int, ...]
    op: str = "clamp"
    """clamp, add, scale, ablate or project_out."""
    values: tuple[float, ...] = ()
    """One for each latent, or one for all: in units of x for `clamp` and `add`, a factor for `scale`."""
    when: str = "always"
    """always, input (from the first position on at which the condition is met), token (where it is met)."""
    condition: tuple[int, ...] = ()
    """Latents of which one has to be above `above`; empty for those that are edited."""
    above: tuple[float, ...] = (0.0,)
    """What those have to be above, in units of x: one for all, or one for each."""
    causal: bool = True
    """Whether `input` decides by what came until now. If not, by the whole text, which has to be there already."""
    decode: str = "delta"
    """delta keeps the SAE's error; full puts the reconstruction in place of x."""

    def __post_init__(self) -> None:
        for name, known in (("op", OPERATIONS), ("when", WHEN), ("decode", DECODE)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is not known: choose one of {', '.join(known)}")
        for name in ("latents", "condition"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} names one twice: give each once")
        if not self.latents:
            raise ValueError("latents=() edits nothing: name at least one")
        wanted = (1, len(self.latents)) if OPERATIONS[self.op].takes_value else (0,)
        if len(self.values) not in wanted:
            raise ValueError(
                f"{self.op} of {len(self.latents)} latents takes {' or '.join(map(str, sorted(set(wanted))))} values, "
                f"not {len(self.values)}"
            )
        if len(self.above) not in (1, len(self.condition or self.latents)):
            raise ValueError(f"above={self.above} is not one number, nor one for each latent of the condition")
        if not all(map(isfinite, (*self.values, *self.above))):
            raise ValueError(f"values={self.values}, above={self.above}: choose finite numbers")

    @property
    def watched(self) -> tuple[int, ...]:
        """The latents that the condition is about; none where there is no condition."""
        return () if self.when == "always" else self.condition or self.latents


@dataclass
class Trace:
    """Where a running edit changed what, over all its calls."""

    altered: list[Bool[Tensor, "batch pos"]] = field(default_factory=list)
    """Of each call: which positions were changed."""
    touchable: list[Bool[Tensor, "batch pos"]] = field(default_factory=list)
    """Of each call: which could have been, had the conditions been met."""
    continued: list[bool] = field(default_factory=list)
    """Of each call: whether it went on where the one before had ended."""
    lengths: list[Float[Tensor, " n_altered"]] = field(default_factory=list)
    """Of each call: |x' − x| / |x| of the changed positions."""

    def of_sequence(self, number: int) -> tuple[bool, ...]:
        """Which positions of a sequence of the last batch were changed, from its first on."""
        start = max(i for i, continues in enumerate(self.continued) if not continues)
        return tuple(bool(each) for part in self.altered[start:] for each in part[number])

    @property
    def n_altered(self) -> int:
        """Positions that were changed."""
        return sum(int(each.sum()) for each in self.altered)

    @property
    def mean_length(self) -> float | None:
        """Mean |x' − x| / |x| over changed positions; None where none was."""
        every = torch.cat(self.lengths) if self.lengths else torch.empty(0)
        return float(every.double().mean()) if len(every) else None


class Intervention:
    """Edits that go together, of one dictionary. It has no state of its own: `begin` gives what runs."""

    def __init__(self, sae: SAE, *configs: InterventionConfig, sink_norm: float = float("inf")) -> None:
        """Check that the edits are of this dictionary.

        Args:
            sae: reads and writes the activations.
            configs: the edits, in the order in which they are made.
            sink_norm: rows that are longer are attention sinks: they are left alone, and meet no condition.

        Raises:
            ValueError: no edit, a latent that is none of `sae`, or a dictionary whose rows are not what it reads.
        """
        if not configs:
            raise ValueError("there is nothing to do: give at least one InterventionConfig")
        # A crosscoder's rows are of several hook points, each at a scale of its own.
        if sae.cfg.width_out != sae.cfg.d_in or type(sae).leave is not SAE.leave:
            raise ValueError(
                f"{type(sae).__name__} writes elsewhere than it reads: choose a dictionary of one hook point"
            )
        for latent in (i for cfg in configs for i in (*cfg.latents, *cfg.condition)):
            if not 0 <= latent < sae.cfg.d_sae:
                raise ValueError(f"latent={latent} is outside 0..{sae.cfg.d_sae - 1}: d_sae={sae.cfg.d_sae}")
        self.sae, self.configs, self.sink_norm = sae, configs, sink_norm
        self._bases: dict[tuple[int, ...], Tensor] = {}

    def begin(self) -> "Running":
        """The edit of a batch of sequences, from their first position on."""
        return Running(self)

    @cached_property
    def edited(self) -> Int[Tensor, " n_edited"]:
        """The latents that edits change, ascending; those that `project_out` removes are none of them."""
        return self._tensor({i for cfg in self.configs if OPERATIONS[cfg.op].changed for i in cfg.latents})

    @cached_property
    def read(self) -> Int[Tensor, " n_read"]:
        """The latents whose values are needed, ascending: where none is, nothing is encoded."""
        changing = {i for cfg in self.configs if OPERATIONS[cfg.op].reads for i in cfg.latents}
        return self._tensor(changing | {i for cfg in self.configs for i in cfg.watched})

    @cached_property
    def steps(self) -> "tuple[_Step, ...]":
        """The edits with what of the dictionary they need."""
        return tuple(_Step.of(self, cfg) for cfg in self.configs)

    @cached_property
    def rows(self) -> Float[Tensor, "n_edited d_in"]:
        """Decoder rows of the latents that are edited."""
        return self.sae.W_dec.detach()[self.edited]

    def basis(self, latents: tuple[int, ...]) -> Float[Tensor, "rank d_in"]:
        """Orthonormal, of the span of these latents' decoder rows."""
        if latents not in self._bases:
            self._bases[latents] = _basis(self.sae.W_dec.detach()[list(latents)])
        return self._bases[latents]

    def _tensor(self, latents: Iterable[int]) -> Tensor:
        return torch.tensor(sorted(latents), dtype=torch.long, device=self.sae.W_dec.device)


class _Step(NamedTuple):
    """One edit with what of the dictionary it needs."""

    cfg: InterventionConfig
    at: Int[Tensor, " n"]
    """Columns of its latents among those that are edited."""
    wanted: Float[Tensor, " n"]
    watched: Int[Tensor, " n_watched"]
    """Columns of its condition's latents among those that are read."""
    above: Float[Tensor, " n_above"]
    removes: bool
    """Whether x loses what it has along the latents' decoder rows."""

    @classmethod
    def of(cls, what: Intervention, cfg: InterventionConfig) -> "_Step":
        like = what.sae.W_dec
        moves = OPERATIONS[cfg.op].changed is None
        values = cfg.values * len(cfg.latents) if len(cfg.values) == 1 else cfg.values
        own = torch.tensor(() if moves else cfg.latents, dtype=torch.long, device=like.device)
        watched = torch.tensor(cfg.watched, dtype=torch.long, device=like.device)
        return cls(
            cfg,
            torch.searchsorted(what.edited, own),
            torch.tensor(values).to(like),
            torch.searchsorted(what.read, watched),
            torch.tensor(cfg.above).to(like),
            moves,
        )


@dataclass
class Running:
    """An intervention at work on a batch of sequences: an `Edit`."""

    what: Intervention
    trace: Trace = field(default_factory=Trace)
    _latched: dict[int, Tensor] = field(default_factory=dict)
    """By number of the edit: `[batch]` whether its condition was met in the sequence until now."""

    @torch.no_grad()
    def __call__(
        self, h: Float[Tensor, "batch pos d_in"], touch: Bool[Tensor, "batch pos"], continues: bool
    ) -> Float[Tensor, "batch pos d_in"]:
        """Edit one stretch of positions of every sequence; those that nothing is done to come back bit for bit.

        Args:
            h: activations.
            touch: where they may be touched. Padding and first positions are the caller's to leave out.
            continues: whether `h` goes on where the call before ended.

        Raises:
            ValueError: an edit is not causal, and `h` is not whole.
        """
        touch = touch & (h.norm(dim=-1) <= self.what.sink_norm)
        x = h[touch].to(self.what.sae.W_dec)
        values, x_hat = _read(self.what, x)
        met = [self._met(number, step, values, touch, continues) for number, step in enumerate(self.what.steps)]
        edited, moved = _edited(self.what, x, values, x_hat, met)
        altered = touch.masked_scatter(touch, moved.to(touch.device))
        self._note(touch, altered, continues, x[moved], edited[moved])
        return h.index_put((altered,), edited[moved].to(device=h.device, dtype=h.dtype))

    def _met(
        self, number: int, step: _Step, values: Tensor, touch: Tensor, continues: bool
    ) -> Bool[Tensor, " rows"] | None:
        """Which of the touchable rows an edit is made on; None for all."""
        if step.cfg.when == "always":
            return None
        fired = (values[:, step.watched] > step.above).any(dim=1)
        if step.cfg.when == "token":
            return fired
        grid = torch.zeros_like(touch).masked_scatter(touch, fired.to(touch.device))
        return self._since(number, grid, continues, causal=step.cfg.causal)[touch].to(fired.device)

    def _since(self, number: int, fired: Tensor, continues: bool, *, causal: bool) -> Bool[Tensor, "batch pos"]:
        """Where the condition is met by what came until there; or, if not causal, anywhere in the sequence."""
        if not causal:
            if continues:
                raise ValueError("causal=False decides by whole texts, and this one is being written: use causal=True")
            return fired.any(dim=1, keepdim=True).expand_as(fired)
        since = fired.cumsum(dim=1) > 0
        if continues:
            since = since | self._latched[number][:, None]
        self._latched[number] = since[:, -1]
        return since

    def _note(self, touch: Tensor, altered: Tensor, continues: bool, before: Tensor, after: Tensor) -> None:
        self.trace.continued.append(continues)
        self.trace.touchable.append(touch)
        self.trace.altered.append(altered)
        self.trace.lengths.append(((after - before).norm(dim=1) / before.norm(dim=1)).cpu())


def _read(what: Intervention, x: Tensor) -> tuple[Float[Tensor, "rows n_read"], Tensor | None]:
    """The latents' values, and the reconstruction where one is asked for; nothing is encoded for nothing."""
    if any(cfg.decode == "full" for cfg in what.configs):
        x_hat, latents = what.sae(x)
        return latents.columns(what.read), x_hat
    if not len(what.read):
        return x.new_zeros(len(x), 0), None
    return what.sae.encode(x).columns(what.read), None


def _edited(
    what: Intervention, x: Tensor, values: Tensor, x_hat: Tensor | None, met: Sequence[Tensor | None]
) -> tuple[Float[Tensor, "rows d_in"], Bool[Tensor, " rows"]]:
    """The rows after all edits, and which of them are no longer what they were."""
    own = x.new_zeros(len(x), len(what.edited))
    read = torch.isin(what.edited, what.read)
    own[:, read] = values[:, torch.searchsorted(what.read, what.edited[read])]
    change, rebuilt = torch.zeros_like(own), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for step, where in zip(what.steps, met, strict=True):
        changed = OPERATIONS[step.cfg.op].changed
        if changed is not None:
            new = changed(change[:, step.at], own[:, step.at], step.wanted)
            change[:, step.at] = new if where is None else torch.where(where[:, None], new, change[:, step.at])
        if step.cfg.decode == "full":
            rebuilt |= True if where is None else where
    base = x if x_hat is None else torch.where(rebuilt[:, None], x_hat, x)
    moved = (change != 0).any(dim=1)
    out = torch.where(moved[:, None], base + change @ what.rows, base)
    removed = [(step, where) for step, where in zip(what.steps, met, strict=True) if step.removes]
    if removed:
        along = _along(what, out, removed)
        moved, out = moved | (along != 0).any(dim=1), out - along
    return out, moved | rebuilt


def _along(what: Intervention, x: Tensor, removed: Sequence[tuple[_Step, Tensor | None]]) -> Float[Tensor, "rows d_in"]:
    """What rows have in the joint span of the decoder rows that are projected out of them."""
    everywhere = torch.ones(len(x), dtype=torch.bool, device=x.device)
    met = torch.stack([everywhere if where is None else where for _, where in removed])
    patterns, which = met.unique(dim=1, return_inverse=True)
    out = torch.zeros_like(x)
    for number, pattern in enumerate(patterns.t()):
        latents = {i for (step, _), on in zip(removed, pattern.tolist(), strict=True) if on for i in step.cfg.latents}
        if latents:
            basis = what.basis(tuple(sorted(latents)))
            mine = which == number
            out[mine] = x[mine] @ basis.t() @ basis
    return out


def _basis(rows: Float[Tensor, "n d_in"]) -> Float[Tensor, "rank d_in"]:
    """Orthonormal, of the span of `rows`; rows that others span add none."""
    _, sizes, axes = torch.linalg.svd(rows.double(), full_matrices=False)
    return axes[sizes > sizes.max() * RANK_TOLERANCE].to(rows)


@dataclass
class Redirected:
    """An edit's changes, of the same lengths and in the same places, along a direction of one's own: what a change of
    that size does whatever it points at."""

    edit: Running
    direction: Float[Tensor, " d_in"]
    """Of any length; to go against it, give its negative."""

    @property
    def trace(self) -> Trace:
        """Where, and by what share of x: those of the edit, as both are the same."""
        return self.edit.trace

    @torch.no_grad()
    def __call__(self, h: Tensor, touch: Tensor, continues: bool) -> Tensor:
        """Move as far as the edit does; where that does nothing, `h` comes back bit for bit."""
        length = (self.edit(h, touch, continues).float() - h.float()).norm(dim=-1, keepdim=True)
        along = (self.direction / self.direction.norm()).to(device=h.device, dtype=torch.float32)
        return torch.where(length > 0, (h.float() + length * along).to(h.dtype), h)


def push(rows: Float[Tensor, "batch d_in"], strengths: Float[Tensor, " batch"]) -> Edit:
    """Add strengths[b] · rows[b] to every position of sequence b, whatever is there; strength 0 changes no bit."""

    @torch.no_grad()
    def edit(h: Tensor, touch: Tensor, continues: bool) -> Tensor:
        change = strengths[:, None, None] * rows[:, None, :]
        pushed = (h.to(device=rows.device, dtype=rows.dtype) + change).to(device=h.device, dtype=h.dtype)
        return torch.where(touch[..., None], pushed, h)

    return edit
