"""Sequences to batches of like length: how many tokens go through the model at once, and how many are padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from activations.sequences import TokenSequence

MAX_PADDING = 0.04
"""A batch ends before more of it than this is padding, once it is large enough to be worth a forward pass."""
MIN_FILL = 1 / 8
"""Large enough: this share of the tokens that a batch may have."""


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right to one length."""

    sequences: tuple[TokenSequence, ...]
    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    """True on tokens, False on padding."""

    @property
    def n_padding(self) -> int:
        """Places that hold no token."""
        return int((~self.mask).sum())


def batches(sequences: Sequence[TokenSequence], batch_tokens: int) -> Iterator[Batch]:
    """Batches of sequences of like length, so that little is padding; the order depends only on the input.

    Args:
        sequences: of a window.
        batch_tokens: tokens and padding in one batch, at most; a longer sequence is alone in its batch.
    """
    waiting: list[TokenSequence] = []
    n_tokens = 0
    for sequence in sorted(sequences, key=lambda sequence: (-len(sequence), sequence.seq)):
        places = (len(waiting) + 1) * len(waiting[0]) if waiting else 0
        padded = places - n_tokens - len(sequence) > MAX_PADDING * places
        if places > batch_tokens or (padded and n_tokens >= MIN_FILL * batch_tokens):
            yield pad(tuple(waiting))
            waiting, n_tokens = [], 0
        waiting.append(sequence)
        n_tokens += len(sequence)
    if waiting:
        yield pad(tuple(waiting))


def pad(sequences: tuple[TokenSequence, ...]) -> Batch:
    """One batch, padded with zeros that the mask hides: some models pad with a real token, so no id is special."""
    lengths = np.array([len(sequence) for sequence in sequences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.zeros(mask.shape, np.int64)
    tokens[mask] = np.concatenate([sequence.ids for sequence in sequences])
    return Batch(sequences, torch.from_numpy(tokens), torch.from_numpy(mask))
