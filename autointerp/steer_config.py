"""What a person asks of steering: strengths in multiples of how high a latent goes, and what that is in units of x."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae.base import SAE
from sae.edits import OPERATIONS, DirectionConfig, InterventionConfig
from sae.intervene import Intervention
from store.errors import UsageError

IN_UNITS = ("clamp", "add")
"""Operations whose strength is in multiples of a latent's q99.9; that of `scale` is a factor."""


@dataclass(frozen=True, kw_only=True)
class SteerConfig:
    """One edit of some latents."""

    latents: tuple[int, ...]
    """Their numbers."""
    op: str = "clamp"
    """clamp (hold at a value), add, scale, ablate (clamp to 0) or project_out (remove all along the decoder rows)."""
    strength: tuple[float, ...] = (1.0,)
    """Of clamp and add: multiples of each latent's q99.9 on the harvested text. Of scale: a factor. One for all, or one
    each; ablate and project_out take none."""
    when: str = "always"
    """always (every position), input (from the first position on at which the condition is met), token (only there)."""
    condition: tuple[int, ...] = ()
    """Latents one of which has to fire; none for those that are edited."""
    above: tuple[float, ...] = (0.0,)
    """How high they have to be, in multiples of their q99.9: one for all, or one each."""
    causal: bool = True
    """Whether `input` decides by what came until now; if not, by the whole text, which has to be there already."""
    decode: str = "delta"
    """delta keeps what the dictionary does not explain; full puts its reconstruction in place of the activation."""

    @property
    def watched(self) -> tuple[int, ...]:
        """The latents of the condition; none where there is none."""
        return () if self.when == "always" else self.condition or self.latents


@dataclass(frozen=True, kw_only=True)
class SteerVector:
    """A direction of one's own that is added."""

    vector: tuple[float, ...]
    """`[d_in]`; where it points is all that counts. `autointerp.steer_vector.read_vector` reads one from a file."""
    strength: float = 0.1
    """Length of what is added, as a share of the mean length of activations in the harvested text; below 0 it is added
    the other way."""
    name: str = "a vector"
    """What it is called where an edit is told in words."""
    when: str = "always"
    """As `SteerConfig.when`."""
    condition: tuple[int, ...] = ()
    """Latents one of which has to fire."""
    above: tuple[float, ...] = (0.0,)
    """How high they have to be, in multiples of their q99.9: one for all, or one each."""


SteerEdit = SteerConfig | SteerVector


def edits_of(
    latent: int | Sequence[int] | Sequence[SteerEdit], strength: float | Sequence[float] = 1.0, **edit: Any
) -> tuple[SteerEdit, ...]:
    """Edits from the shortest way to say them: a latent, several that are edited alike, or what they are.

    Raises:
        UsageError: there is no such setting, or settings beside edits that have their own.
    """
    several = (latent,) if isinstance(latent, int | np.integer) else tuple(latent)
    ready = tuple(each for each in several if isinstance(each, SteerEdit))
    if ready:
        if len(ready) < len(several) or edit:
            raise UsageError("give latents with settings, or SteerConfigs, which have their own: not both")
        return ready
    strengths = (strength,) if isinstance(strength, int | float | np.number) else tuple(strength)
    try:
        return (SteerConfig(latents=tuple(map(int, several)), strength=tuple(map(float, strengths)), **edit),)  # pyright: ignore
    except TypeError as error:
        raise UsageError(f"{error}: SteerConfig has op, when, condition, above, causal and decode") from error


def intervention(
    configs: Sequence[SteerEdit],
    sae: SAE,
    units: np.ndarray,
    sink_norm: float = float("inf"),
    mean_norm: float | None = None,
) -> Intervention:
    """The edits in units of x.

    Args:
        configs: in the order in which they are made.
        sae: whose latents they are.
        units: `[d_sae]` q99.9 of each latent, 0 for one that never fired.
        sink_norm: activations that are longer are left alone.
        mean_norm: of activations, the unit of vectors; None where it is not known.

    Raises:
        UsageError: a setting that is none, a latent that there is not, or one that never fired and so has no unit.
    """
    try:
        return Intervention(
            sae, *(_absolute(cfg, sae.cfg.d_sae, units, mean_norm) for cfg in configs), sink_norm=sink_norm
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _absolute(
    cfg: SteerEdit, d_sae: int, units: np.ndarray, mean_norm: float | None
) -> InterventionConfig | DirectionConfig:
    _refuse_idle(cfg)
    for latent in (*(() if isinstance(cfg, SteerVector) else cfg.latents), *cfg.condition):
        if not 0 <= latent < d_sae:
            raise UsageError(f"there is no latent {latent}: choose 0 to {d_sae - 1}")
    if isinstance(cfg, SteerVector):
        return _direction(cfg, units, mean_norm)
    return InterventionConfig(
        latents=cfg.latents,
        op=cfg.op,
        values=_values(cfg, units),
        when=cfg.when,
        condition=cfg.condition,
        above=_scaled("above", cfg.above, cfg.watched, units) if any(cfg.above) else (0.0,),
        causal=cfg.causal,
        decode=cfg.decode,
    )


def _direction(cfg: SteerVector, units: np.ndarray, mean_norm: float | None) -> DirectionConfig:
    if mean_norm is None:
        raise UsageError(
            "how long activations are is not known, so a vector has no unit of strength: `monosem harvest --repair` "
            "writes what is missing"
        )
    if cfg.when != "always" and not cfg.condition:
        raise UsageError(f"when={cfg.when} needs a condition for a vector: name the latents one of which has to fire")
    return DirectionConfig(
        vector=cfg.vector,
        length=cfg.strength * mean_norm,
        when=cfg.when,
        condition=cfg.condition,
        above=_scaled("above", cfg.above, cfg.condition, units) if any(cfg.above) else (0.0,),
    )


def _refuse_idle(cfg: SteerEdit) -> None:
    """Settings that would do nothing are mistakes."""
    if cfg.when == "always" and (cfg.condition or any(cfg.above)):
        raise UsageError("a condition does nothing on every position: choose when=input or when=token, or leave it out")
    if isinstance(cfg, SteerVector):
        return
    if cfg.op in OPERATIONS and not OPERATIONS[cfg.op].takes_value and cfg.strength != (1.0,):
        raise UsageError(f"{cfg.op} takes no strength: leave it out, or choose clamp, add or scale")
    if not cfg.causal and cfg.when != "input":
        raise UsageError(f"causal=False is about when=input, not {cfg.when}: leave it out")


def _values(cfg: SteerConfig, units: np.ndarray) -> tuple[float, ...]:
    if cfg.op not in OPERATIONS or not OPERATIONS[cfg.op].takes_value:
        return ()
    return _scaled("strength", cfg.strength, cfg.latents, units) if cfg.op in IN_UNITS else cfg.strength


def _scaled(what: str, times: tuple[float, ...], latents: tuple[int, ...], units: np.ndarray) -> tuple[float, ...]:
    """Multiples of each latent's unit."""
    if len(times) not in (1, len(latents)):
        raise UsageError(f"{what} has {len(times)} numbers for {len(latents)} latents: give one, or one for each")
    every = times * len(latents) if len(times) == 1 else times
    for latent in latents:
        if not units[latent] > 0:
            raise UsageError(
                f"latent {latent} never fired on the harvested text, so there is no unit of strength: choose one that "
                "fires, or scale, ablate or project_out"
            )
    return tuple(float(time * units[latent]) for time, latent in zip(every, latents, strict=True))


def told(cfg: SteerEdit) -> str:
    """An edit in words, for people."""
    if isinstance(cfg, SteerVector):
        return f"{cfg.strength:g} × the mean length of activations added along {cfg.name}{_place_told(cfg)}"
    who = f"latent{'s' * (len(cfg.latents) > 1)} {', '.join(map(str, cfg.latents))}"
    times = ", ".join(f"{time:g}" for time in cfg.strength)
    what = {
        "clamp": f"{who} clamped to {times} × q99.9",
        "add": f"{times} × q99.9 of {who} added",
        "scale": f"{who} times {times}",
        "ablate": f"{who} set to 0",
        "project_out": f"the decoder rows of {who} projected out",
    }[cfg.op]
    rest = ", the reconstruction in place of the activation" if cfg.decode == "full" else ""
    return f"{what}{_place_told(cfg)}{rest}"


def _place_told(cfg: SteerEdit) -> str:
    of = ", ".join(map(str, cfg.watched if isinstance(cfg, SteerConfig) else cfg.condition))
    height = f" above {', '.join(f'{time:g}' for time in cfg.above)} × q99.9" if any(cfg.above) else ""
    where = {
        "always": "on every token but the first",
        "input": f"from the first token on that one of {of} fires on{height}",
        "token": f"on tokens that one of {of} fires on{height}",
    }[cfg.when]
    return f", {where}"
