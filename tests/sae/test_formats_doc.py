"""docs/formats.md says of every format what is read, written and refused."""

import re
from pathlib import Path

import pytest

from sae import VARIANTS
from sae.convert import FORMATS, saelens_config

TEXT = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "monosem"])
def test_every_format_has_a_section_and_a_line(name: str):
    assert f"| `{name}` |" in TEXT
    assert len(SECTIONS[name]) > 500


def test_the_formats_that_can_be_written_say_what_becomes_of_every_variant():
    for name, line in FORMATS.items():
        if line.write and name != "monosem":
            assert all(f"`{variant}`" in SECTIONS[name] for variant in VARIANTS), name


def test_all_that_saelens_may_say_is_in_its_section():
    words = (
        *saelens_config.ARCHITECTURES,
        *saelens_config.NOT_HERE,
        *saelens_config.OF_ONE_ROW,
        *saelens_config.OF_ALL_ROWS,
    )
    assert all(f"`{word}`" in SECTIONS["saelens"] for word in words)
