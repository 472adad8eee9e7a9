"""An index of what fires where, told by anybody: no dictionary, no vectors, no model."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from activations.progress import Progress, no_progress
from autointerp.index.config import IndexConfig
from autointerp.index.encode import Codes
from autointerp.index.ranges import Ranges, titles
from autointerp.index.spill import SPILL, Spill, Thinning
from store.feature_index import TEXT_FOLDER
from store.index import part_path, write_part
from store.token_map import TokenMap, write_token_map


def index_codes(
    folder: Path,
    harvest: Path,
    windows: Iterable[Codes],
    d_sae: int,
    words: Sequence[str],
    cfg: IndexConfig,
    progress: Progress = no_progress,
) -> dict[str, float | int]:
    """Fill an index's folder with every table that follows from what fires where; returns what a run ends with.

    Args:
        folder: of the index.
        harvest: folder with the documents and tokens.
        windows: of each of the harvest's windows what fires on its tokens.
        d_sae: number of latents.
        words: text of every token, by id.
        cfg: what to keep.
        progress: wraps long loops.
    """
    write_token_map(folder / TEXT_FOLDER, harvest)
    tokens, spill = TokenMap(folder / TEXT_FOLDER), Spill(folder)
    if not part_path(folder, "titles").exists():
        write_part(folder, "titles", titles(harvest))
    thinning = Thinning(cfg.max_events, cfg.n_top, cfg.seed, len(tokens))
    seen = np.zeros(d_sae, np.int64)
    for window, codes in enumerate(windows):
        first = int(tokens.windows[window])
        kept = thinning.kept(codes, tokens, first, d_sae, seen)
        spill.write(window, codes, kept, None, d_sae)
        seen = kept.seen
    work = Ranges(folder, cfg, tokens, lambda: list(words), progress)
    work.write()
    shutil.rmtree(folder / SPILL, ignore_errors=True)
    return work.summary()
