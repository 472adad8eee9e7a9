"""Hook points: places in a model, by their TransformerLens names."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from store.errors import UsageError

NAME = re.compile(r"^blocks\.(?P<layer>\d+)\.(?P<site>[\w.]+)$")
CHOICE = re.compile(r"\{([^{}]*)\}")

RESIDUAL_SITES = frozenset({"hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out"})
"""Sites whose vectors are in the residual stream's own basis, so that the unembedding can read them. Width alone does
not tell: the heads' outputs side by side (`attn.hook_z`) are often just as wide."""

HEAD_SITE = "attn.hook_z"
"""Where heads' outputs lie side by side, before each is mapped to the residual stream."""

PAIR_SITES = ("hook_pattern", "hook_attn_scores", "hook_rot_q", "hook_rot_k", "hook_cos", "hook_sin")
"""Last parts of sites whose second axis is not the token: attention over pairs of tokens, and what rotates heads."""


@dataclass(frozen=True)
class HookPoint:
    """A place inside one block, such as `blocks.8.hook_resid_post`."""

    layer: int
    site: str
    """Its name within the block, such as `hook_resid_post` or `attn.hook_z`."""

    @property
    def name(self) -> str:
        """The TransformerLens name."""
        return f"blocks.{self.layer}.{self.site}"

    @property
    def in_residual_basis(self) -> bool:
        """Whether the unembedding can read vectors from here."""
        return self.site in RESIDUAL_SITES

    @property
    def stop_at_layer(self) -> int:
        """The first block that need not run to reach this place."""
        return self.layer + 1


def parse_hook_point(name: str, known: Sequence[str]) -> HookPoint:
    """The hook point called `name`, if it is among the model's.

    Raises:
        UsageError: the model has no such place; the nearest names are listed.
    """
    match = NAME.match(name)
    if match and name in known:
        if match["site"].split(".")[-1] in PAIR_SITES:
            raise UsageError(f"{name} holds no vector per token: choose a site such as hook_resid_post or attn.hook_z")
        return HookPoint(int(match["layer"]), match["site"])
    raise UsageError(f"no hook point '{name}' in this model: the nearest are {', '.join(_nearest(name, known))}")


def expand_hook_points(patterns: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names that some patterns stand for, each once, a pattern's own in order of layer.

    Args:
        patterns: names, `*` for any part between two dots, `{4,8}` for one of several.
        known: every name the model has.

    Raises:
        UsageError: a pattern that fits no place of the model; the nearest names are listed.
    """
    found: dict[str, None] = {}
    for pattern in (single for written in patterns for single in _choices(written)):
        if "*" not in pattern:
            found[parse_hook_point(pattern, known).name] = None
            continue
        shape = re.compile(re.escape(pattern).replace(r"\*", r"[^.]*"))
        fitting = [name for name in known if NAME.match(name) and shape.fullmatch(name)]
        if not fitting:
            nearest = ", ".join(_nearest(pattern, known))
            raise UsageError(f"no hook point of this model fits '{pattern}': the nearest are {nearest}")
        found |= dict.fromkeys(sorted(fitting, key=_by_layer))
    return tuple(found)


def _choices(pattern: str) -> Iterator[str]:
    """`a.{4,8}.b` to `a.4.b` and `a.8.b`."""
    match = CHOICE.search(pattern)
    if match is None:
        yield pattern
        return
    for choice in match[1].split(","):
        yield from _choices(pattern[: match.start()] + choice.strip() + pattern[match.end() :])


def _by_layer(name: str) -> tuple[int, str]:
    return int(name.split(".")[1]), name


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    inside = [hook for hook in known if NAME.match(hook)]
    return difflib.get_close_matches(name, inside, n=4, cutoff=0.3) or inside[:4]
