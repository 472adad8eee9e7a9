"""A harvest and what fires on it, made up: as many tokens as are asked, without a model, vectors or a dictionary.

Tokens are drawn by Zipf's law. On every token k latents fire, one of each of k classes, most of them rare and one
of each class on a fifth of all tokens, which are the latents of whose events an index keeps a sample. Values are
log-normal, their size a latent's own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autointerp.index.encode import Codes
from store import layout
from store.shards import TOKEN_CLASSES
from store.tables import DOCUMENTS, SEQUENCES
from store.token_map import TokenMap

D_VOCAB = 50_257
BOS = D_VOCAB - 1
WORDS = [f" w{number}" for number in range(D_VOCAB - 1)] + ["<bos>"]
"""Text of every token."""
N_CTX, SEQUENCES_PER_DOCUMENT, SEQUENCES_PER_WINDOW = 128, 8, 256
N_SOURCES = 5
K = 32


def lay_out(folder: Path, n_tokens: int, seed: int = 0) -> None:
    """Documents and tokens of a harvest, `n_tokens` in whole documents of `N_CTX * SEQUENCES_PER_DOCUMENT`."""
    per_document = N_CTX * SEQUENCES_PER_DOCUMENT
    if n_tokens % per_document:
        raise ValueError(f"n_tokens={n_tokens} is not made of whole documents: take a multiple of {per_document}")
    (folder / "documents").mkdir(parents=True, exist_ok=True)
    (folder / "tokens").mkdir(parents=True, exist_ok=True)
    n_sequences = n_tokens // N_CTX
    rng, texts = np.random.default_rng(seed), []
    for window, first in enumerate(range(0, n_sequences, SEQUENCES_PER_WINDOW)):
        seqs = np.arange(first, min(first + SEQUENCES_PER_WINDOW, n_sequences), dtype=np.int32)
        ids = _zipf(rng, (len(seqs), N_CTX))
        ids[:, 0] = BOS
        start, end = _characters(ids)
        columns = {"token_ids": ids, "doc_ids": np.repeat(seqs // SEQUENCES_PER_DOCUMENT, N_CTX)}
        columns |= {"char_start": start, "char_end": end, "text_class": np.zeros(ids.shape)}
        columns["text_class"][:, 0] = TOKEN_CLASSES["special"]
        flat = {name: np.ascontiguousarray(column).ravel() for name, column in columns.items()}
        offsets = pa.array(np.arange(0, len(seqs) + 1) * N_CTX, pa.int32())
        lists = {
            name: pa.ListArray.from_arrays(offsets, pa.array(column).cast(SEQUENCES.field(name).type.value_type))
            for name, column in flat.items()
        }
        pq.write_table(pa.table({"seq": seqs, **lists}, schema=SEQUENCES), layout.token_part(folder, window))
        for document in ids.reshape(-1, per_document):
            texts.append("".join(WORDS[i] for i in document.tolist() if i != BOS))
    n_docs = len(texts)
    about: dict[str, Any] = {
        "doc_id": np.arange(n_docs),
        "source": [f"source {number % N_SOURCES}" for number in range(n_docs)],
        "title": [f"document {number}" for number in range(n_docs)],
        "split": ["heldout" if number % 10 == 0 else "train" for number in range(n_docs)],
        "n_tokens": np.full(n_docs, per_document),
        "text": texts,
    }
    pq.write_table(pa.table(about, schema=DOCUMENTS), layout.document_part(folder, 0))


def _zipf(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Ids below BOS, id i about as often as 1 / (i + 1)."""
    return np.exp(rng.random(shape) * np.log(BOS)).astype(np.int32) - 1


def _characters(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each token begins and ends in its document, -1 for BOS."""
    lengths = LENGTHS[ids].reshape(-1, SEQUENCES_PER_DOCUMENT * N_CTX)
    end = np.cumsum(lengths, axis=1)
    start = end - lengths
    off = ids.reshape(end.shape) == BOS
    return np.where(off, -1, start).reshape(ids.shape), np.where(off, -1, end).reshape(ids.shape)


LENGTHS = np.array([len(word) for word in WORDS[:-1]] + [0])


def codes(tokens: TokenMap, d_sae: int, k: int = K, seed: int = 0, power: int = 3) -> Iterator[Codes]:
    """Of each window what fires on its tokens; `power` as for `fired`."""
    names = np.random.default_rng(seed).permutation(d_sae).astype(np.int32)
    for window, (first, stop) in enumerate(zip(tokens.windows[:-1], tokens.windows[1:], strict=True)):
        rng = np.random.default_rng((seed, window))
        counted = np.asarray(tokens.text_class[first:stop]) == TOKEN_CLASSES["normal"]
        on = np.flatnonzero(counted)
        latents = names[fired(rng, len(on), d_sae, k, power)]
        values = np.exp(rng.standard_normal(latents.shape, np.float32)) * (1 + latents % 7)
        offsets = np.concatenate([[0], np.cumsum(counted * k)])
        by_class = np.zeros((len(TOKEN_CLASSES), d_sae), np.int64)
        by_class[TOKEN_CLASSES["normal"]] = np.bincount(latents.ravel(), minlength=d_sae)
        yield Codes(offsets, latents.ravel(), values.ravel(), counted, by_class)


def fired(rng: np.random.Generator, n: int, d_sae: int, k: int, power: int = 3) -> np.ndarray:
    """`[n, k]` int32 different latents each: of d_sae / k in a class, number i of a class as often as i^(1/power - 1),
    which is i^(-2/3) unless told otherwise, and all as often with a power of 1."""
    each = d_sae // k
    within = (rng.random((n, k), np.float32) ** power * each).astype(np.int32)
    return np.minimum(within, each - 1) * k + np.arange(k, dtype=np.int32)
