"""The pass: a window's rows through the encoder, to what fires on which token. Nothing is dense in tokens × latents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from activations.reader import Block
from autointerp.index.groups import ranks
from sae.base import SAE
from sae.encoder import EncoderSAE
from sae.sparse import Pattern, SparseLatents
from store.shards import TOKEN_CLASSES
from store.token_map import TokenMap

CHUNK_ROWS = 4096


class Codes(NamedTuple):
    """What fires on the tokens of one window, token after token, of those that count."""

    offsets: np.ndarray
    """`[n_tokens + 1]` int64: token i has entries `offsets[i]:offsets[i + 1]`."""
    latents: np.ndarray
    """`[n_events]` int32."""
    values: np.ndarray
    """`[n_events]` float32."""
    counted: np.ndarray
    """`[n_tokens]` bool: the token is of a class that counts, and no first position."""
    by_class: np.ndarray
    """`[n_classes, d_sae]` int64: tokens of each class on which a latent fires, the uncounted included."""


class NearMisses:
    """For each latent the silent tokens of the highest pre-activation, one of a block of rows at most.

    A token on which a latent is silent but would have been next to fire says where its border runs. One a block, so
    that a single document cannot take all places.
    """

    def __init__(self, d_sae: int, n: int) -> None:
        self.value = torch.full((d_sae, n), -torch.inf)
        """`[d_sae, n]` pre-activations, highest first; −∞ where there is none."""
        self.place = torch.full((d_sae, n), -1, dtype=torch.int64)

    def look(self, block: Tensor, pattern: Pattern, places: Tensor) -> None:
        """See a block of pre-activations `[rows, d_sae]`, those at `places`; kept ones are overwritten."""
        block.view(-1)[pattern.rows * pattern.d_sae + pattern.indices] = -torch.inf
        highest = block.amax(dim=0)
        better = (highest > self.value[:, -1]).nonzero().flatten()
        if len(better):
            row = block[:, better].argmax(dim=0)
            value = torch.cat([self.value[better], highest[better, None].float()], dim=1)
            place = torch.cat([self.place[better], places[row, None]], dim=1)
            order = value.argsort(dim=1, descending=True, stable=True)[:, :-1]
            self.value[better], self.place[better] = value.gather(1, order), place.gather(1, order)


@dataclass(frozen=True)
class Encoder:
    """Encodes the windows of a harvest one by one."""

    sae: SAE
    tokens: TokenMap
    classes: tuple[str, ...]
    misses: NearMisses | None
    """Updated by every window; None where near misses are not asked for, or the dictionary has no pre-activations."""

    @torch.inference_mode()
    def window(self, number: int, blocks: Sequence[Block], dtype: str) -> Codes:
        """What fires on the tokens of window `number`, whose rows lie in `blocks`."""
        first, stop = self.tokens.windows[number : number + 2].tolist()
        counted = np.zeros(stop - first, bool)
        by_class = np.zeros((len(TOKEN_CLASSES), self.sae.cfg.d_sae), np.int64)
        parts = []
        for block in blocks:
            opened = block.open()
            columns = opened.columns
            places = self.tokens.places(columns["seq"], columns["pos"])
            classes = columns["token_class"]
            counts = np.isin(classes, [TOKEN_CLASSES[name] for name in self.classes]) & (columns["pos"] > 0)
            counted[places[counts] - first] = True
            for rows, is_counted in _chunks(counts):
                x = opened.tensor(rows, dtype).float()
                row, latent, value = _fired(self._encode(x, places[rows], watched=is_counted))
                _count(by_class, classes[rows][row], latent)
                if is_counted:
                    parts.append((places[rows][row] - first, latent, value))
        return _by_token(parts, counted, by_class)

    def _encode(self, x: Tensor, places: np.ndarray, *, watched: bool) -> SparseLatents:
        if not watched or self.misses is None or not isinstance(self.sae, EncoderSAE):
            return self.sae.encode(x)
        misses, at, seen = self.misses, torch.from_numpy(places), 0

        def watch(block: Tensor, pattern: Pattern) -> None:
            nonlocal seen
            misses.look(block, pattern, at[seen : seen + len(block)])
            seen += len(block)

        return self.sae.encode_watched(x, watch)


def _chunks(counts: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """Row numbers of those that count and then of the others, some at a time."""
    for rows, is_counted in ((np.flatnonzero(counts), True), (np.flatnonzero(~counts), False)):
        for start in range(0, len(rows), CHUNK_ROWS):
            yield rows[start : start + CHUNK_ROWS], is_counted


def _fired(latents: SparseLatents) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, latent and value of what is active, row after row."""
    row, latent, value = (t.numpy() for t in (latents.rows, latents.indices, latents.values))
    on = value != 0
    if not on.all():
        row, latent, value = row[on], latent[on], value[on]
    return row, latent.astype(np.int32), value.astype(np.float32)


def _count(by_class: np.ndarray, token_class: np.ndarray, latent: np.ndarray) -> None:
    n_classes, d_sae = by_class.shape
    keys = token_class.astype(np.int64) * d_sae + latent
    by_class += np.bincount(keys, minlength=n_classes * d_sae).reshape(n_classes, d_sae)


def _by_token(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], counted: np.ndarray, by_class: np.ndarray
) -> Codes:
    """Entries in order of their tokens; `parts` hold token, latent and value, each token's entries together."""
    token = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
    counts = np.bincount(token, minlength=len(counted))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    latents, values = np.empty(len(token), np.int32), np.empty(len(token), np.float32)
    for at, latent, value in parts:
        target = offsets[at] + ranks(at)
        latents[target], values[target] = latent, value
    return Codes(offsets, latents, values, counted, by_class)
