"""One torch thread, fixed seeds, shapes checked where they are asked for; a tiny finished run for whoever asks."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# What people run has no such checks, and errors of its own: both ways are tested.
if os.environ.get("MONOSEM_CHECK_SHAPES") == "1":
    from jaxtyping import install_import_hook

    # Before anything of ours is imported: only then does the hook see the modules.
    install_import_hook(["sae", "activations", "autointerp"], "beartype.beartype")


from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run of every kind, made by the demo's tiny recipe. Treat it as read-only."""
    from app.commands.demo import run_demo

    root = tmp_path_factory.mktemp("tiny") / "runs"
    run_demo("tiny", root)
    return root


class Loading(HTMLParser):
    """Everything in a piece of HTML that would run, or be fetched from elsewhere."""

    ELEMENTS = frozenset(["script", "iframe", "frame", "object", "embed", "link", "base", "meta", "form"])
    ADDRESSES = frozenset(
        ["src", "srcset", "href", "xlink:href", "action", "formaction", "data", "poster", "background"]
    )

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.tags: set[str] = set()
        self._in = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        self.tags.add(tag)
        self.found += [tag] if tag in self.ELEMENTS else []
        for name, value in attrs:
            text = (value or "").strip().lower()
            address = name in self.ADDRESSES and not text.startswith(("#", "data:image/"))
            if address or name.startswith("on") or (name == "style" and "url(" in text):
                self.found.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "style" and ("url(" in data.lower() or "@import" in data.lower()):
            self.found.append(f"style: {data}")


@pytest.fixture(scope="session")
def loading() -> Callable[[str], Loading]:
    """Reads HTML for what it would run or fetch, and for its elements."""
    return Loading
