"""Search over explanations by what they mean: cosine of sentence embeddings, which are made once for each text.

Embeddings lie in the index's folder, in files that are whole or absent; each holds texts that were new when it was
written. They can be made again from the explanations, so they are not among the files a run answers for.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from autointerp.embedders import EMBEDDERS, Embedder
from autointerp.search.explanations import explained
from autointerp.search.sources import SearchConfig, Sources, asked_for
from store.errors import UsageError
from store.files import whole_file
from store.run import EMBEDDINGS

log = logging.getLogger(__name__)
KEY_BYTES = 16


def key_of(text: str) -> bytes:
    """What a text is known by."""
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


class EmbeddingFiles:
    """The embeddings of one embedder that are kept in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / EMBEDDINGS / name

    def vectors(self, texts: Sequence[str], embed: Embedder) -> np.ndarray:
        """`[n, d]` float32: one row a text; those not known yet are embedded and kept.

        Args:
            texts: at least one.
            embed: what makes them.
        """
        known = self._read()
        new = {key: text for text in texts if (key := key_of(text)) not in known}
        if new:
            rows = embed(list(new.values()))
            try:
                self._write(list(new), rows)
            except PermissionError as error:
                log.warning("embeddings are not kept (%s): they are made again by the next process", error)
            known |= dict(zip(new, rows, strict=True))
        return np.stack([known[key_of(text)] for text in texts])

    def _read(self) -> dict[bytes, np.ndarray]:
        known: dict[bytes, np.ndarray] = {}
        for path in sorted(self._folder.glob("*.npy")):
            try:
                rows = np.load(path, mmap_mode="r", allow_pickle=False)
                keys, vectors = rows["key"], rows["vector"]
            except (OSError, ValueError, EOFError, IndexError, KeyError) as error:
                log.warning("%s is damaged (%s): its texts are embedded again", path, error)
                continue
            known |= {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}
        return known

    def _write(self, keys: list[bytes], vectors: np.ndarray) -> None:
        rows = np.empty(len(keys), [("key", np.uint8, KEY_BYTES), ("vector", np.float32, vectors.shape[1])])
        rows["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), KEY_BYTES)
        rows["vector"] = vectors
        name = hashlib.blake2b(b"".join(sorted(keys)), digest_size=8).hexdigest()
        with whole_file(self._folder / f"{name}.npy") as scratch, scratch.open("wb") as handle:
            np.save(handle, rows, allow_pickle=False)


def search_meaning(sources: Sources, query: str, cfg: SearchConfig) -> pd.DataFrame:
    """Explanations by the cosine of their embedding with that of `query`: `latent explainer similarity …`.

    Raises:
        UsageError: no query, no such embedder, its model is not at hand, or nothing is explained.
    """
    asked_for(query, "what the explanation should mean")
    if cfg.embedder not in EMBEDDERS:
        raise UsageError(f"no embedder '{cfg.embedder}': choose one of {', '.join(EMBEDDERS)}")
    frame = sources.of_version("explained", lambda: explained(sources))
    embedder = sources.embedder(cfg.embedder)
    files = EmbeddingFiles(sources.index.folder, cfg.embedder)
    vectors = sources.of_version(
        f"vectors of {cfg.embedder}", lambda: files.vectors(frame["explanation"].tolist(), embedder)
    )
    similarity = vectors @ embedder([query])[0]
    best = np.lexsort((np.arange(len(frame)), -similarity))[: cfg.n]
    found = frame.iloc[best].reset_index(drop=True)
    found.insert(2, "similarity", similarity[best].astype(float))
    found.attrs["note"] = f"of {len(frame):,} explanations, by {cfg.embedder}"
    return found
