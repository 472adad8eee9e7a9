"""docs/variants.md has a section for every variant, and its tables say what the code's defaults are."""

import ast
import dataclasses
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from sae import VARIANTS, EncoderConfig, SAEConfig
from sae.itda_build import BuildConfig
from sae.train import TrainConfig

DOCUMENT = Path(__file__).parents[2] / "docs" / "variants.md"
SHARED = "What all variants share"
REQUIRED = "required"
SETTING = re.compile(r"`([^`]+)`|required")


def sections() -> dict[str, str]:
    """The text under each heading, up to the next one."""
    parts = re.split(r"^#+ (.+)\n", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def told(section: str) -> dict[str, Any]:
    """The defaults that a section's tables of settings give, by name."""
    found: dict[str, Any] = {}
    for table in re.findall(r"^\| setting \| default \| \|\n\|[-|]+\|\n((?:\|.*\n)+)", section, re.MULTILINE):
        for line in table.splitlines():
            names, defaults = ([match[0] for match in SETTING.finditer(cell)] for cell in line.split("|")[1:3])
            for name, default in zip(names, defaults, strict=True):
                assert name.strip("`") not in found, line
                found[name.strip("`")] = value(default)
    return found


def value(text: str) -> Any:
    """A default as the document writes it: a Python literal or a fraction."""
    text = text.strip("`")
    if text == REQUIRED:
        return dataclasses.MISSING
    return float(Fraction(text)) if "/" in text else ast.literal_eval(text)


def defaults(config_cls: type) -> dict[str, Any]:
    """What the code has, MISSING where a setting must be given."""
    return {field.name: field.default for field in dataclasses.fields(config_cls)}


def special(config_cls: type) -> dict[str, Any]:
    """The defaults that a variant adds to those of all, or changes."""
    common = defaults(EncoderConfig)
    return {name: default for name, default in defaults(config_cls).items() if common.get(name, ...) != default}


def asked(variant: str) -> type:
    """The settings that a person gives: an ITDA's are those of building it."""
    return BuildConfig if variant == "itda" else VARIANTS[variant].config_cls


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_a_section_and_its_equation_and_command(variant):
    section = sections()[variant]
    assert "```text" in section
    assert f"monosem train {variant}" in section


@pytest.mark.parametrize("variant", VARIANTS)
def test_defaults_in_a_section_are_the_codes(variant):
    known = defaults(asked(variant))
    for name, default in told(sections()[variant]).items():
        assert known[name] == default, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_section_leaves_out_no_setting_of_its_variant(variant):
    assert told(sections()[variant]).keys() == special(asked(variant)).keys()


def test_what_all_share_is_told_whole():
    widths = defaults(SAEConfig).keys()
    shared = {name: default for name, default in defaults(EncoderConfig).items() if name not in widths}
    assert told(sections()[SHARED]) == shared | defaults(TrainConfig)


def test_the_overview_links_to_every_variant():
    linked = re.findall(r"\[`(\w+)`\]\(#(\w+)\)", DOCUMENT.read_text(encoding="utf-8"))
    assert set(VARIANTS) <= {name for name, anchor in linked if name == anchor}
