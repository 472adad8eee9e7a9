"""Firing events of a dictionary: encode every row once, keep only what fired, and reduce it per latent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from activations.progress import Progress, no_progress
from activations.reader import Activations
from sae.base import SAE
from store.shards import float_rows

CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Events:
    """Where each latent fired, sorted by latent, sequence and position; nothing dense of width d_sae."""

    latent: np.ndarray
    """`[n_events]` int32."""
    seq: np.ndarray
    pos: np.ndarray
    doc_id: np.ndarray
    value: np.ndarray
    """`[n_events]` float32, all positive."""
    d_sae: int
    n_tokens: int
    """Rows encoded: what densities are fractions of."""

    def __len__(self) -> int:
        return len(self.latent)

    @property
    def bounds(self) -> np.ndarray:
        """`[d_sae + 1]`: latent i has events `bounds[i]:bounds[i + 1]`."""
        return np.searchsorted(self.latent, np.arange(self.d_sae + 1))

    def sorted(self) -> "Events":
        """The same events in order."""
        return self.take(np.lexsort((self.pos, self.seq, self.latent)))

    def take(self, order: np.ndarray) -> "Events":
        """The events at `order`."""
        columns = ("latent", "seq", "pos", "doc_id", "value")
        return replace(self, **{name: getattr(self, name)[order] for name in columns})


@torch.inference_mode()
def collect(sae: SAE, activations: Activations, classes: Sequence[str], progress: Progress = no_progress) -> Events:
    """Every event of every latent over the rows of some token classes, first positions left out."""
    selection = activations.rows("all", classes).selection
    parts: list[list[np.ndarray]] = []
    n_tokens = 0
    for block in progress(activations.blocks, len(activations.blocks), "encode every token"):
        opened = block.open()
        columns = opened.columns
        rows = selection.of(columns)
        n_tokens += len(rows)
        for start in range(0, len(rows), CHUNK_ROWS):
            chosen = rows[start : start + CHUNK_ROWS]
            latents = sae.encode(float_rows(opened.vectors, activations.dtype, chosen))
            on = latents.active.numpy()
            row, latent, value = (t.numpy()[on] for t in (latents.rows, latents.indices, latents.values))
            places = [columns[name][chosen[row]] for name in ("seq", "pos", "doc_id")]
            parts.append([latent.astype(np.int32), *places, value.astype(np.float32)])
    latent, seq, pos, doc_id, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    events = Events(latent, seq, pos, doc_id, value, d_sae=sae.cfg.d_sae, n_tokens=n_tokens)
    return events.sorted()


def peaks(events: Events) -> Events:
    """The strongest event of each latent in each document of each sequence, strongest first within a latent."""
    order = np.lexsort((-events.value, events.doc_id, events.seq, events.latent))
    keys = [events.latent[order], events.seq[order], events.doc_id[order]]
    first = np.ones(len(order), bool)
    first[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    strongest = events.take(order[first])
    return strongest.take(np.lexsort((strongest.doc_id, strongest.seq, -strongest.value, strongest.latent)))


QUANTILES = {"q50": 0.5, "q90": 0.9, "q99": 0.99, "q999": 0.999}


def statistics(events: Events, n_bins: int) -> dict[str, np.ndarray | list[np.ndarray]]:
    """The columns of the index's `latents` table, in float64; all figures are exact.

    Quantiles are order statistics of the active values (the smallest value with at least that share at or below it).
    """
    d_sae, latent = events.d_sae, events.latent
    value = events.value.astype(np.float64)
    n_fired = np.bincount(latent, minlength=d_sae)
    divisor = np.maximum(n_fired, 1)
    by_value = events.value[np.lexsort((events.value, latent))]
    bounds = events.bounds
    largest = _order_statistic(by_value, bounds, 1.0)
    pairs = np.unique(np.stack([latent.astype(np.int64), events.doc_id.astype(np.int64)]), axis=1)
    scale = np.where(largest > 0, largest, 1)[latent]
    bins = np.clip(np.ceil(value / scale * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    histogram = np.bincount(latent * np.int64(n_bins) + bins, minlength=d_sae * n_bins).reshape(d_sae, n_bins)
    return {
        "latent": np.arange(d_sae, dtype=np.int32),
        "n_fired": n_fired,
        "n_docs": np.bincount(pairs[0], minlength=d_sae),
        "density": n_fired / max(events.n_tokens, 1),
        "mean": np.bincount(latent, value, d_sae) / divisor,
        "mean_square": np.bincount(latent, value**2, d_sae) / divisor,
        "max": largest,
        **{name: _order_statistic(by_value, bounds, q) for name, q in QUANTILES.items()},
        "histogram": list(histogram),
    }


def _order_statistic(by_value: np.ndarray, bounds: np.ndarray, q: float) -> np.ndarray:
    """`[d_sae]` quantile of each latent's run of ascending values; 0 where it has none."""
    n = np.diff(bounds)
    place = bounds[:-1] + np.maximum(np.ceil(q * n).astype(np.int64), 1) - 1
    found = by_value[np.minimum(place, max(len(by_value) - 1, 0))] if len(by_value) else np.zeros(len(n))
    return np.where(n > 0, found, 0.0)
