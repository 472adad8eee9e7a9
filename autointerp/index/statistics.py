"""What is known of each latent in numbers: exact ones of all its events, and the shape of its values."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from autointerp.index.gather import LatentEvents, Runs, Totals
from sae.metrics import DENSE_DENSITY
from store.shards import TOKEN_CLASSES
from store.token_map import TokenMap

QUANTILES = {"q50": 0.5, "q90": 0.9, "q99": 0.99, "q999": 0.999}


def statistics(
    events: LatentEvents, known: Totals, tokens: TokenMap, sources: np.ndarray, n_tokens: int, n_bins: int, seed: int
) -> dict[str, Any]:
    """The columns of the index's `latents` table for the latents of `events`, in float64.

    Counts, moments and extremes are exact. Quantiles are order statistics of the kept values (the smallest with at
    least that share at or below it), exact where every event is kept; the histogram is brought to all events.

    Args:
        events: of a range of latents.
        known: exact figures of all latents.
        tokens: of the harvest.
        sources: `[n_docs]` a number for each document's source.
        n_tokens: that count.
        n_bins: of the histogram, from 0 or the smallest value to the largest.
        seed: of the sample.
    """
    own = slice(events.first, events.first + events.n_latents)
    n_fired, values = known.n_fired[own], events.sampled(tokens, seed)
    low, high = np.minimum(known.min[own], 0.0), known.max[own]
    low, high = np.where(n_fired > 0, low, 0.0), np.where(n_fired > 0, high, 0.0)
    return {
        "latent": np.arange(own.start, own.stop, dtype=np.int32),
        "n_fired": n_fired,
        "density": n_fired / max(n_tokens, 1),
        "dead": n_fired == 0,
        "dense": n_fired > DENSE_DENSITY * n_tokens,
        **moments(n_fired, known.sums[:, own]),
        "min": np.where(n_fired > 0, known.min[own], 0.0),
        "max": high,
        **quantiles(values),
        "histogram": list(scaled(histogram(values, low, high, n_bins), n_fired)),
        **spread(events.fired, tokens, sources),
        **{f"n_{name}": known.by_class[number, own] for name, number in TOKEN_CLASSES.items()},
        "special_share": known.by_class[TOKEN_CLASSES["special"], own]
        / np.maximum(known.by_class[:, own].sum(axis=0), 1),
        "event_share": 0.5**events.shift,
        "n_events": events.n,
    }


def moments(n: np.ndarray, sums: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, mean square and skewness (third standardised moment) of active values; 0 where there are none, or one."""
    mean, square, cube = sums / np.maximum(n, 1)
    variance = square - mean**2
    # Below this the difference is rounding: all values are equal.
    spread = variance > 1e-12 * np.maximum(square, 1e-300)
    third = cube - 3 * mean * square + 2 * mean**3
    skewness = np.where(spread, third / np.where(spread, variance, 1.0) ** 1.5, 0.0)
    return {"mean": mean, "mean_square": square, "skewness": skewness}


def quantiles(events: LatentEvents) -> dict[str, np.ndarray]:
    """`[n_latents]` for each of QUANTILES; 0 where there is no value."""
    ordered = sorted_values(events)
    n = events.n
    out = {}
    for name, q in QUANTILES.items():
        place = events.bounds[:-1] + np.maximum(np.ceil(q * n).astype(np.int64), 1) - 1
        found = ordered[np.minimum(place, max(len(ordered) - 1, 0))] if len(ordered) else np.zeros(len(n))
        out[name] = np.where(n > 0, found, 0.0)
    return out


def sorted_values(events: LatentEvents) -> np.ndarray:
    """`[n]` each latent's values, ascending."""
    keys = np.sort((events.latent.astype(np.uint64) << np.uint64(32)) | order_bits(events.value))
    bits = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    positive = bits >> np.uint32(31) == 1
    return np.where(positive, bits ^ np.uint32(0x80000000), ~bits).astype(np.uint32).view(np.float32)


def order_bits(values: np.ndarray) -> np.ndarray:
    """`[n]` uint64 below 2^32 in the order of the float32 values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, ~bits, bits | np.uint32(0x80000000)).astype(np.uint64)


def histogram(events: LatentEvents, low: np.ndarray, high: np.ndarray, n_bins: int) -> np.ndarray:
    """`[n_latents, n_bins]` counts of values in bins of equal width over (low, high]."""
    latent = events.latent
    width = np.where(high > low, high - low, 1.0)[latent]
    share = (events.value.astype(np.float64) - low[latent]) / width
    bins = np.clip(np.ceil(share * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    return np.bincount(latent * n_bins + bins, minlength=events.n_latents * n_bins).reshape(-1, n_bins)


def scaled(counts: np.ndarray, total: np.ndarray) -> np.ndarray:
    """`[n_latents, n_bins]` integers in proportion to `counts` that add up to `total`; unchanged where they do."""
    share = total / np.maximum(counts.sum(axis=1), 1)
    return np.diff(np.rint(np.cumsum(counts, axis=1) * share[:, None]).astype(np.int64), axis=1, prepend=0)


def spread(fired: Runs, tokens: TokenMap, sources: np.ndarray) -> dict[str, np.ndarray]:
    """How a latent's firings are spread over documents and their sources, and where its first and last are."""
    docs = fired.documents(tokens)
    n_latents, n_sources = len(fired.bounds) - 1, int(sources.max(initial=0)) + 1
    keys, counts = np.unique(fired.latent * max(tokens.n_docs, 1) + docs, return_counts=True)
    of = keys // max(tokens.n_docs, 1)
    by_source = np.bincount(fired.latent * n_sources + sources[docs], minlength=n_latents * n_sources)
    source_of = np.repeat(np.arange(n_latents), n_sources)
    alive = fired.n > 0
    ends = {"first_seq": fired.bounds[:-1], "last_seq": fired.bounds[1:] - 1}
    seq = fired.positions(tokens)[0]
    return {
        "n_docs": np.bincount(of, minlength=n_latents),
        "doc_entropy": entropy(of, counts, n_latents),
        "source_entropy": entropy(source_of, by_source, n_latents),
        **{
            name: np.where(alive, seq.take(at, mode="clip") if len(seq) else -1, -1).astype(np.int32)
            for name, at in ends.items()
        },
    }


def entropy(of: np.ndarray, counts: np.ndarray, n: int) -> np.ndarray:
    """`[n]` Shannon entropy in bits of the counts that belong to each of `n` latents; 0 for none."""
    total = np.bincount(of, counts, n)
    terms = np.bincount(of, counts * np.log2(np.maximum(counts, 1)), n)
    return np.maximum(np.log2(np.maximum(total, 1)) - terms / np.maximum(total, 1), 0.0)


def sources_of(documents: Mapping[str, Any]) -> np.ndarray:
    """`[n_docs]` a number for each document's source."""
    names = np.asarray(documents["source"], dtype=object)
    return np.unique(names.astype(str), return_inverse=True)[1] if len(names) else np.zeros(0, np.int64)
