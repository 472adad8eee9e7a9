"""Whether two harvests went through the same tokens in the same windows, so that a row of one has its row in the other.

The tokens themselves decide, not the settings: two models with the same vocabulary agree, whatever else their
tokenizers hold. The settings only say what differs where the tokens do.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activations.prepare import heldout_documents
from store import layout
from store.errors import UsageError
from store.files import read_json
from store.run import Run

COMPARED = ["seq", "token_ids", "doc_ids"]
"""Columns of a window's tokens that say which row is which token of which document."""
SHOWN_HASH = 12
"""Characters of a hash in a message."""


def check_same_tokens(first: Run, other: Run) -> None:
    """Nothing, where every window of both harvests holds the same tokens and the same documents are held out.

    Raises:
        UsageError: what differs.
    """
    if first.id == other.id or _have_same_tokens(first.folder, other.folder):
        return
    one, two = _asked(first), _asked(other)
    differ = [f"{name} {two[name]} instead of {one[name]}" for name in one if one[name] != two.get(name)]
    raise UsageError(
        f"harvest {other.id} has other tokens than {first.id} ({', '.join(differ) or 'all settings are the same'}): "
        "only harvests with the same tokens in the same windows are joined; make one again as the other was made"
    )


def _have_same_tokens(first: Path, other: Path) -> bool:
    one, two = (read_json(folder / layout.TEXT) for folder in (first, other))
    return (
        one["windows"] == two["windows"]
        and np.array_equal(heldout_documents(first), heldout_documents(other))
        and all(_is_same_window(first, other, one, two, number) for number in range(len(one["windows"])))
    )


def _is_same_window(first: Path, other: Path, one: dict[str, Any], two: dict[str, Any], number: int) -> bool:
    """By their checksums where these agree; special tokens may be classed otherwise and the tokens be the same."""
    name = layout.token_part(first, number).relative_to(first).as_posix()
    if one["files"][name]["sha256"] == two["files"][name]["sha256"]:
        return True
    return _tokens(first / name).equals(_tokens(other / name))


def _tokens(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, columns=COMPARED)
    except (OSError, pa.ArrowInvalid) as error:
        run_id = path.parent.parent.name
        raise UsageError(f"{path} cannot be read ({error}): `monosem harvest --repair {run_id}`") from error


def _asked(run: Run) -> dict[str, Any]:
    """Every setting that decides a harvest's tokens and windows."""
    harvest = run.config["harvest"]
    return {
        "text": f"{harvest['text']['corpus']} ({run.same['text'][:SHOWN_HASH]})",
        **run.same["text_settings"],
        "n_ctx": harvest["n_ctx"],
        "shard_rows x window_shards": harvest["shard_rows"] * harvest["window_shards"],
        "tokenizer": run.same["model"]["tokenizer"][:SHOWN_HASH],
    }
