"""Hook points by name and by pattern."""

import pytest

from activations.hook_point import HookPoint, expand_hook_points, parse_hook_point
from store.errors import UsageError

SITES = ("hook_resid_pre", "hook_resid_post", "attn.hook_z", "mlp.hook_post")
KNOWN = (
    *(f"blocks.{layer}.{site}" for layer in (0, 1, 2, 10) for site in SITES),
    "hook_embed",
    "ln_final.hook_normalized",
)


def test_a_name_is_parsed_into_layer_and_site():
    hook = parse_hook_point("blocks.10.attn.hook_z", KNOWN)
    assert hook == HookPoint(10, "attn.hook_z")
    assert (hook.name, hook.stop_at_layer, hook.in_residual_basis) == ("blocks.10.attn.hook_z", 11, False)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["blocks.1.hook_resid_pre"], ["blocks.1.hook_resid_pre"]),
        (["blocks.*.hook_resid_post"], [f"blocks.{n}.hook_resid_post" for n in (0, 1, 2, 10)]),
        (["blocks.{2,0}.attn.hook_z"], ["blocks.2.attn.hook_z", "blocks.0.attn.hook_z"]),
        (["blocks.{0,1}.hook_resid_{pre,post}"], [
            "blocks.0.hook_resid_pre", "blocks.0.hook_resid_post",
            "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post",
        ]),
        (["blocks.0.*"], ["blocks.0.hook_resid_post", "blocks.0.hook_resid_pre"]),
        (["blocks.0.*.*"], ["blocks.0.attn.hook_z", "blocks.0.mlp.hook_post"]),
        (["blocks.1.hook_resid_pre", "blocks.*.hook_resid_pre"], [
            "blocks.1.hook_resid_pre", "blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.10.hook_resid_pre",
        ]),
    ],
)  # fmt: skip
def test_patterns_stand_for_names_each_once_and_in_order_of_layer(patterns: list[str], expected: list[str]):
    assert list(expand_hook_points(patterns, KNOWN)) == expected


@pytest.mark.parametrize(
    "pattern", ["blocks.7.hook_resid_post", "blocks.*.hook_resid", "blocks.{0,7}.attn.hook_z", "hook_embed", "", "*"]
)
def test_what_fits_no_place_is_refused_with_the_nearest_names(pattern: str):
    with pytest.raises(UsageError, match=r"the nearest are blocks\."):
        expand_hook_points([pattern], KNOWN)
