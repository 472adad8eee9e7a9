"""What edits are asked for: operations on latents, directions of one's own, and where either is done."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import hypot, isfinite
from typing import NamedTuple

from torch import Tensor


class Operation(NamedTuple):
    """What is done to latents."""

    about: str
    equation: str
    """What x becomes, for one latent: `{x}` is what it starts from, `{v}` the wanted value, `{i}` the latent's number;
    a is its value, d its decoder row."""
    changed: Callable[[Tensor, Tensor, Tensor], Tensor] | None
    """From the change so far, the latents' values `[rows, n]` and the wanted values `[n]` to the change; None where x
    is moved whatever its latents are."""
    reads: bool
    """Whether it needs the latents' values."""
    takes_value: bool


OPERATIONS: Mapping[str, Operation] = {
    "clamp": Operation(
        "hold at a value", "{x} + ({v} − a{i}) d{i}", lambda c, z, v: v - z, reads=True, takes_value=True
    ),
    "add": Operation("add a value", "{x} + {v} d{i}", lambda c, z, v: c + v, reads=False, takes_value=True),
    "scale": Operation(
        "multiply by a gain",
        "{x} + ({v} − 1) a{i} d{i}",
        lambda c, z, v: (z + c) * v - z,
        reads=True,
        takes_value=True,
    ),
    "ablate": Operation("set to 0", "{x} − a{i} d{i}", lambda c, z, v: -z, reads=True, takes_value=False),
    "project_out": Operation(
        "remove all of x along decoder rows",
        "{x} − (x · d{i}) d{i} / |d{i}|²",
        None,
        reads=False,
        takes_value=False,
    ),
}
"""By the name used on the command line. Edits of one latent compose in their order; projections come last."""
DIRECTION_EQUATION = "{x} + {v} u"
"""As `Operation.equation`, of a direction of one's own: u has length 1."""
WHEN = ("always", "input", "token")
"""On every position; from the first on at which the condition is met; on those at which it is met."""
DECODE = ("delta", "full")


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


@dataclass(frozen=True, kw_only=True)
class DirectionConfig:
    """One direction that is added, whatever the latents are."""

    vector: tuple[float, ...]
    """`[d_in]`, of any length but 0: where it points is all that counts."""
    length: float
    """Of what is added, in units of x; below 0 it is added the other way."""
    when: str = "always"
    """As `InterventionConfig.when`."""
    condition: tuple[int, ...] = ()
    """Latents of which one has to be above `above`; needed where `when` is not always."""
    above: tuple[float, ...] = (0.0,)
    """What those have to be above, in units of x: one for all, or one for each."""
    causal: bool = True
    """As `InterventionConfig.causal`."""

    def __post_init__(self) -> None:
        if self.when not in WHEN:
            raise ValueError(f"when={self.when!r} is not known: choose one of {', '.join(WHEN)}")
        if not all(map(isfinite, (*self.vector, self.length, *self.above))):
            raise ValueError("a vector, its length or what a condition is above is not finite: choose finite numbers")
        if hypot(*self.vector) == 0:
            raise ValueError(f"a vector of {len(self.vector)} zeros has no direction: give another")
        if self.when != "always" and not self.condition:
            raise ValueError(f"when={self.when!r} has no condition: name the latents one of which has to fire")
        if len(self.above) not in (1, len(self.condition)):
            raise ValueError(f"above={self.above} is not one number, nor one for each latent of the condition")

    @property
    def values(self) -> tuple[float, ...]:
        """The length, where an edit of latents has its values."""
        return (self.length,)

    @property
    def watched(self) -> tuple[int, ...]:
        """The latents that the condition is about; none where there is no condition."""
        return () if self.when == "always" else self.condition
