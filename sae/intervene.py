"""Edits of activations through latents: what is changed, where, and what stays.

An edit moves x along decoder rows by what the latents lack: x' = x + Σ_i (a'_i − a_i) · W_dec[i] (`delta`), so that
the SAE's error x − x_hat(x) passes through untouched (Templeton et al. 2024, transformer-circuits.pub/2024/
scaling-monosemanticity, "Feature steering"). `full` puts the reconstruction x_hat(a') in its place and costs that
error (SAUCE, arXiv:2503.14530). Where: on every position, on those at or after one that meets a condition, or on those
that meet it (three tiers: Goyal et al. 2025, arXiv:2505.14536; causal, so that no decision reads a later token). A
direction of one's own is added beside them: x' = x + length · u.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.base import SAE
from sae.edits import OPERATIONS, DirectionConfig, InterventionConfig

Edit = Callable[[Tensor, Tensor, bool], Tensor]
"""`[batch, pos, d_in]` activations, `[batch, pos]` bool where they may be touched, and whether the sequences go on from
the call before; to activations of the same shape."""
RANK_TOLERANCE = 1e-6
"""Directions of a set of rows that are shorter, as a share of the longest, are rounding."""


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

    def of_sequence(self, number: int, which: list[Tensor] | None = None) -> tuple[bool, ...]:
        """Which positions of a sequence of the last batch were changed, from its first on; or, of `which` in place of
        `altered`, for what that says."""
        parts = self.altered if which is None else which
        return tuple(bool(each) for part in parts[self._last :] for each in part[number])

    def shares(self, number: int) -> tuple[float, ...]:
        """|x' − x| / |x| of the changed positions of a sequence of the last batch, in their order."""
        calls = zip(self.altered[self._last :], self.lengths[self._last :], strict=True)
        return tuple(float(each) for at, lengths in calls for each in lengths[at.nonzero()[:, 0].cpu() == number])

    @property
    def _last(self) -> int:
        """The call with which the last batch began."""
        return max(i for i, continues in enumerate(self.continued) if not continues)

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

    def __init__(
        self, sae: SAE, *configs: InterventionConfig | DirectionConfig, sink_norm: float = float("inf")
    ) -> None:
        """Check that the edits are of this dictionary.

        Args:
            sae: reads and writes the activations.
            configs: the edits, in the order in which they are made.
            sink_norm: rows that are longer are attention sinks: they are left alone, and meet no condition.

        Raises:
            ValueError: no edit, one that cannot be of `sae`, or a dictionary whose rows are not what it reads.
        """
        if not configs:
            raise ValueError("there is nothing to do: give at least one InterventionConfig")
        # A crosscoder's rows are of several hook points, each at a scale of its own.
        if sae.cfg.width_out != sae.cfg.d_in or type(sae).leave is not SAE.leave:
            raise ValueError(
                f"{type(sae).__name__} writes elsewhere than it reads: choose a dictionary of one hook point"
            )
        self.sae, self.configs, self.sink_norm = sae, configs, sink_norm
        for latent in (i for cfg in self._of_latents for i in cfg.latents):
            self._refuse_unknown(latent)
        for latent in (i for cfg in configs for i in cfg.condition):
            self._refuse_unknown(latent)
        for cfg in configs:
            if isinstance(cfg, DirectionConfig) and len(cfg.vector) != sae.cfg.d_in:
                raise ValueError(
                    f"a vector has {len(cfg.vector)} numbers, x has {sae.cfg.d_in}: give one of that length"
                )
        self._bases: dict[tuple[int, ...], Tensor] = {}

    def begin(self) -> "Running":
        """The edit of a batch of sequences, from their first position on."""
        return Running(self)

    def _refuse_unknown(self, latent: int) -> None:
        if not 0 <= latent < self.sae.cfg.d_sae:
            raise ValueError(f"latent={latent} is outside 0..{self.sae.cfg.d_sae - 1}: d_sae={self.sae.cfg.d_sae}")

    @property
    def _of_latents(self) -> tuple[InterventionConfig, ...]:
        return tuple(cfg for cfg in self.configs if isinstance(cfg, InterventionConfig))

    @cached_property
    def edited(self) -> Int[Tensor, " n_edited"]:
        """The latents that edits change, ascending; those that `project_out` removes are none of them."""
        return self._tensor({i for cfg in self._of_latents if OPERATIONS[cfg.op].changed for i in cfg.latents})

    @cached_property
    def read(self) -> Int[Tensor, " n_read"]:
        """The latents whose values are needed, ascending: where none is, nothing is encoded."""
        changing = {i for cfg in self._of_latents if OPERATIONS[cfg.op].reads for i in cfg.latents}
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

    cfg: InterventionConfig | DirectionConfig
    changed: Callable[[Tensor, Tensor, Tensor], Tensor] | None
    """What its operation does to latents; None where it moves x whatever they are."""
    at: Int[Tensor, " n"]
    """Columns of its latents among those that are edited."""
    wanted: Float[Tensor, " n"]
    watched: Int[Tensor, " n_watched"]
    """Columns of its condition's latents among those that are read."""
    above: Float[Tensor, " n_above"]
    removes: tuple[int, ...]
    """Latents along whose decoder rows x loses what it has."""
    added: Float[Tensor, " d_in"] | None
    """What is added to x."""

    @classmethod
    def of(cls, what: Intervention, cfg: InterventionConfig | DirectionConfig) -> "_Step":
        like, own, wanted, removes, added, changed = what.sae.W_dec, (), (), (), None, None
        if isinstance(cfg, DirectionConfig):
            vector = torch.tensor(cfg.vector, dtype=torch.float64)
            added = (vector * (cfg.length / vector.norm())).to(like)
        else:
            changed = OPERATIONS[cfg.op].changed
            own, removes = (cfg.latents, ()) if changed else ((), cfg.latents)
            wanted = cfg.values * len(cfg.latents) if len(cfg.values) == 1 else cfg.values
        return cls(
            cfg,
            changed,
            torch.searchsorted(what.edited, torch.tensor(own, dtype=torch.long, device=like.device)),
            torch.tensor(wanted).to(like),
            torch.searchsorted(what.read, torch.tensor(cfg.watched, dtype=torch.long, device=like.device)),
            torch.tensor(cfg.above).to(like),
            removes,
            added,
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
    if any(_rebuilds(cfg) for cfg in what.configs):
        x_hat, latents = what.sae(x)
        return latents.columns(what.read), x_hat
    if not len(what.read):
        return x.new_zeros(len(x), 0), None
    return what.sae.encode(x).columns(what.read), None


def _rebuilds(cfg: InterventionConfig | DirectionConfig) -> bool:
    return isinstance(cfg, InterventionConfig) and cfg.decode == "full"


def _edited(
    what: Intervention, x: Tensor, values: Tensor, x_hat: Tensor | None, met: Sequence[Tensor | None]
) -> tuple[Float[Tensor, "rows d_in"], Bool[Tensor, " rows"]]:
    """The rows after all edits, and which of them are no longer what they were."""
    own = x.new_zeros(len(x), len(what.edited))
    read = torch.isin(what.edited, what.read)
    own[:, read] = values[:, torch.searchsorted(what.read, what.edited[read])]
    change, rebuilt = torch.zeros_like(own), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for step, where in zip(what.steps, met, strict=True):
        if step.changed is not None:
            new = step.changed(change[:, step.at], own[:, step.at], step.wanted)
            change[:, step.at] = new if where is None else torch.where(where[:, None], new, change[:, step.at])
        if _rebuilds(step.cfg):
            rebuilt |= True if where is None else where
    base = x if x_hat is None else torch.where(rebuilt[:, None], x_hat, x)
    moved, added = (change != 0).any(dim=1), _added(what, x, met)
    out = torch.where(moved[:, None], base + change @ what.rows, base)
    if added is not None:
        moved, out = moved | (added != 0).any(dim=1), torch.where(added != 0, out + added, out)
    removed = [(step, where) for step, where in zip(what.steps, met, strict=True) if step.removes]
    if removed:
        along = _along(what, out, removed)
        moved, out = moved | (along != 0).any(dim=1), out - along
    return out, moved | rebuilt


def _added(what: Intervention, x: Tensor, met: Sequence[Tensor | None]) -> Float[Tensor, "rows d_in"] | None:
    """The directions that are added to rows, together; None where none is asked for."""
    parts = [
        step.added.expand_as(x) if where is None else where[:, None] * step.added
        for step, where in zip(what.steps, met, strict=True)
        if step.added is not None
    ]
    return torch.stack(parts).sum(dim=0) if parts else None


def _along(what: Intervention, x: Tensor, removed: Sequence[tuple[_Step, Tensor | None]]) -> Float[Tensor, "rows d_in"]:
    """What rows have in the joint span of the decoder rows that are projected out of them."""
    everywhere = torch.ones(len(x), dtype=torch.bool, device=x.device)
    met = torch.stack([everywhere if where is None else where for _, where in removed])
    patterns, which = met.unique(dim=1, return_inverse=True)
    out = torch.zeros_like(x)
    for number, pattern in enumerate(patterns.t()):
        latents = {i for (step, _), on in zip(removed, pattern.tolist(), strict=True) if on for i in step.removes}
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
