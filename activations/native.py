"""A bridge's forward pass at the speed of the model's own.

A `TransformerBridge` runs attention and norms step by step in Python, so that every intermediate value can be hooked.
Where none of those inner hooks is asked for, the model's own modules compute the same, faster (fused attention). The
hooks at their borders, and those inside their linear maps, still fire.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

BORDERS = ("hook_in", "hook_out")
ATTENTION = "sdpa"


def native_components(bridge: Any, hooked: Iterable[str], silent: Iterable[str] = ()) -> list[nn.Module]:
    """Attention and norm components whose inside nobody looks at.

    Args:
        bridge: a booted `TransformerBridge`.
        hooked: names (or aliases) of the hook points that must fire.
        silent: those of them that do not fire when the model's own modules run around them.
    """
    from transformer_lens.model_bridge.generalized_components import AttentionBridge, NormalizationBridge

    watched = {bridge.hook_dict[name].name for name in hooked}
    inside = {bridge.hook_dict[name].name for name in silent}
    return [
        component
        for component in bridge.modules()
        if isinstance(component, AttentionBridge | NormalizationBridge)
        and component.original_component is not None
        and not _looked_inside(component, watched)
        and not any(name.startswith(_prefix(component)) for name in inside)
    ]


def _looked_inside(component: nn.Module, watched: set[str]) -> bool:
    inner: dict[str, Any] = component.get_hooks()  # type: ignore[operator]
    return any(hook.name in watched for name, hook in inner.items() if name not in BORDERS)


def _prefix(component: Any) -> str:
    """What the names of all hook points in a component begin with, such as `blocks.1.attn.`."""
    return component.hook_in.name.removesuffix("hook_in")


@contextmanager
def native_forward(bridge: Any, components: Iterable[nn.Module]) -> Iterator[None]:
    """While the context lasts, `components` run as the model's own modules."""
    config = bridge.original_model.config
    before, swapped = config._attn_implementation, list(components)
    for component in swapped:
        # Not setattr: a bridge component passes that on to the module it wraps.
        component.__dict__["forward"] = _own_forward(component)
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before
        for component in swapped:
            del component.__dict__["forward"]


@contextmanager
def without_blocks(bridge: Any, n: int, *, as_tuple: bool) -> Iterator[None]:
    """While the context lasts, the first `n` blocks hand on what they are given, computing nothing.

    Args:
        bridge: a booted `TransformerBridge`.
        n: how many.
        as_tuple: whether this model's blocks return a tuple.
    """
    blocks = list(bridge.blocks)[:n]

    def hand_on(*args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else kwargs["hidden_states"]
        return (x,) if as_tuple else x

    for block in blocks:
        block.__dict__["forward"] = hand_on
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]


def _own_forward(component: Any) -> Any:
    own = component.original_component

    def forward(*args: Any, **kwargs: Any) -> Any:
        if args:
            args = (component.hook_in(args[0]), *args[1:])
        else:
            kwargs["hidden_states"] = component.hook_in(kwargs["hidden_states"])
        out = own(*args, **kwargs)
        if isinstance(out, Tensor):
            return component.hook_out(out)
        return (component.hook_out(out[0]), *out[1:])

    return forward
