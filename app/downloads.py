"""What can be taken from the page of a latent: its directions, its contexts, its card."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors.numpy import save

from app.cards import feature_card_html, static_page
from app.workbench import Workbench
from autointerp.rating_sheets import safe_cell
from store.latents import Window

CONTEXT_COLUMNS = (
    *("band", "value", "token", "text", "source", "title", "doc_id", "split", "seq", "pos", "char_start", "char_end"),
    *("weight", "n_same", "active_at", "activations"),
)


def vectors(plain: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A latent's directions as they came from the worker: `decoder`, and `encoder` where there is one."""
    return {side: np.array(values, np.float32) for side, values in plain["directions"].items()}


def vectors_safetensors(directions: Mapping[str, np.ndarray], about: Mapping[str, str]) -> bytes:
    """The directions as float32 tensors `decoder` and `encoder`, `[d_in]` each, with `about` as metadata."""
    return save(dict(directions), dict(about))


def vectors_csv(directions: Mapping[str, np.ndarray]) -> str:
    """The directions as columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["i", *directions])
    rows = zip(*directions.values(), strict=True)
    writer.writerows([i, *(repr(float(value)) for value in row)] for i, row in enumerate(rows))
    return out.getvalue()


def contexts_csv(contexts: Sequence[Window]) -> str:
    """Contexts, one a row; `active_at` counts tokens from the window's first. A text that a table program would take
    for a formula begins with a space."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CONTEXT_COLUMNS)
    writer.writerows(_row(each) for each in contexts)
    return out.getvalue()


def _row(window: Window) -> list[Any]:
    active = [at for at, value in enumerate(window.values) if value > 0]
    return [
        window.band,
        window.value,
        *map(safe_cell, (window.tokens[window.peak], window.text, window.source or "", window.title or "")),
        window.doc_id,
        window.split,
        window.seq,
        window.start + window.peak,
        *window.chars,
        window.weight,
        window.n_same,
        " ".join(map(str, active)),
        " ".join(f"{window.values[at]:.6g}" for at in active),
    ]


def card_page(bench: Workbench, latent: int) -> str:
    """The latent's card as one file that opens offline."""
    title = f"Latent {latent} of {bench.hook_point}"
    return static_page(title, feature_card_html(bench.page(latent), bench.windows(latent)))
