"""Hook points: places in a model, by their TransformerLens names."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from store.errors import UsageError

NAME = re.compile(r"^blocks\.(?P<layer>\d+)\.(?P<site>[\w.]+)$")

RESIDUAL_SITES = frozenset({"hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out"})
"""Sites whose vectors are in the residual stream's own basis, so that the unembedding can read them. Width alone does
not tell: the heads' outputs side by side (`attn.hook_z`) are often just as wide."""


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
        return HookPoint(int(match["layer"]), match["site"])
    inside = [hook for hook in known if NAME.match(hook)]
    nearest = difflib.get_close_matches(name, inside, n=4, cutoff=0.3) or inside[:4]
    raise UsageError(f"no hook point '{name}' in this model: the nearest are {', '.join(nearest)}")
