"""A published index of what fires where, as a dense matrix tells it."""

from pathlib import Path

import numpy as np
import torch

from autointerp.index.config import IndexConfig
from autointerp.index.encode import Codes
from autointerp.index.given import index_codes
from sae import checkpoint
from sae.topk import TopK, TopKConfig
from store.index import publish
from store.run import Run, find_run, start_run
from store.shards import TOKEN_CLASSES
from store.token_map import TokenMap, write_token_map


def tokens_of(harvest: Run, folder: Path) -> TokenMap:
    """The harvest's tokens, laid out in `folder`."""
    write_token_map(folder, harvest.folder)
    return TokenMap(folder)


def given_index(
    root: Path, dense: np.ndarray, tokens: TokenMap, cfg: IndexConfig | None = None, name: str = "", **inputs: str
) -> Run:
    """The index of activations `[n_tokens, d_sae]`, at the places of `tokens`, of the newest harvest under `root`.

    Args:
        root: the folder of all runs.
        dense: what fires where; first positions do not count.
        tokens: of that harvest.
        cfg: what to keep.
        name: tells indexes of the same settings apart.
        inputs: further inputs of the run, such as its dictionary.
    """
    cfg, harvest = cfg or IndexConfig(half_window=4), find_run(root, "latest", "activations")
    counted = tokens.positions(np.arange(len(tokens)))[1] > 0
    by_class = np.zeros((len(TOKEN_CLASSES), dense.shape[1]), np.int64)
    windows = []
    for start, stop in zip(tokens.windows[:-1].tolist(), tokens.windows[1:].tolist(), strict=True):
        here = dense[start:stop] * counted[start:stop, None]
        token, latent = np.nonzero(here)
        offsets = np.searchsorted(token, np.arange(stop - start + 1))
        values = here[token, latent].astype(np.float32)
        windows.append(Codes(offsets, latent.astype(np.int32), values, counted[start:stop], by_class))
    words = [f"<{i}>" for i in range(int(tokens.token_ids.max()) + 1)]
    same = {"name": name, "classes": cfg.classes}
    with start_run(root, "index", cfg, {"activations": harvest.id, **inputs}, same=same) as run:
        run.finish(index_codes(run.folder, harvest.folder, windows, dense.shape[1], words, cfg))
        publish(run)
    return run


def planted(tokens: TokenMap, d: int, density: float = 0.03, seed: int = 0) -> np.ndarray:
    """`[n_tokens, d]` independent latents, each active on this share of all tokens."""
    random = np.random.default_rng(seed)
    return random.exponential(size=(len(tokens), d)) * (random.random((len(tokens), d)) < density)


def with_dictionary(work: Path, rows: torch.Tensor, dense: np.ndarray, tokens: TokenMap, name: str) -> Run:
    """An index whose dictionary has these decoder rows and encoder columns."""
    harvest = find_run(work, "latest", "activations")
    config = {"hook_point": "blocks.1.hook_resid_post", "variant": "topk", "name": name}
    with start_run(work, "sae", config, {"activations": harvest.id}) as run:
        sae = TopK(TopKConfig(d_in=rows.shape[1], d_sae=len(rows), k=2))
        with torch.no_grad():
            sae.W_dec.copy_(rows)
            sae.W_enc.copy_(rows.t())
        checkpoint.save(run.folder, sae)
        run.finish({"d_sae": len(rows)})
    return given_index(work, dense, tokens, name=name, sae=run.id)
