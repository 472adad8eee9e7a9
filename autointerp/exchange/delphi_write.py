"""An index's events as delphi's latent cache (EleutherAI/delphi 0.1.3), so that its explainers and scorers run on them.

HOOK_POINT/{first}_{last}.safetensors, one for each of some consecutive latents: `locations` `[n, 3]` (row, position,
latent minus first; uint16 if all fit, else uint32), `activations` `[n]` float16 and `tokens` `[n_rows, ctx]` int64;
and HOOK_POINT/config.json. `counted.npy` is ours, and delphi does not look at it: `[n_rows, ctx]` int8, 1 for a token
that counts, 0 for another, -1 for padding.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from activations.models import load_tokenizer
from activations.progress import Progress, no_progress
from autointerp.exchange.delphi_cache import COUNTED, MOST_CTX
from autointerp.exchange.events import event_batches
from autointerp.exchange.export import Export
from autointerp.index.gather import CodeFiles
from autointerp.index.spill import Spill
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.files import whole_folder, write_json

N_SHARDS = 5
"""As delphi's own default."""
EXAMPLE_CTX = 32
"""Tokens of delphi's examples by default: a row must be a multiple of it, or examples would run over rows' ends."""
THRESHOLD = 1e-5
"""delphi stores what is above it in absolute value."""

ROWS_AT_A_TIME = 4096
COPY_BYTES = 1 << 18


def write_delphi(out: Path, export: Export, progress: Progress = no_progress) -> dict[str, int]:
    """Write the cache into `out`, a new folder, in bounded memory; returns what was written in numbers.

    Raises:
        UsageError: a latent's events are a sample, or its values are beyond float16; both named.
    """
    _check_all_kept(export)
    rows = Rows(export.index, export.cfg.ctx)
    with whole_folder(out) as scratch:
        folder = scratch / export.hook_point
        folder.mkdir()
        edges = _edges(export.index.n_latents)
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".") as room:
            shards = [_Shard(Path(room), first, last) for first, last in edges]
            n_small = _sort_out(export, rows, shards)
            pad = _padding(export)
            for shard in progress(shards, len(shards), "write delphi's cache"):
                shard.assemble(folder, rows, pad)
        _write_counted(folder / COUNTED, rows)
        write_json(folder / "config.json", _config(export, rows, len(shards)))
    n_events = sum(shard.n for shard in shards)
    n_padding = rows.n_rows * rows.ctx - len(export.index.tokens)
    return {
        "n_events": n_events,
        "n_too_small": n_small,
        "n_rows": rows.n_rows,
        "ctx": rows.ctx,
        "n_padding": n_padding,
    }


def _check_all_kept(export: Export) -> None:
    rows = export.index.arrow("SELECT latent FROM latents WHERE event_share < 1").column("latent").to_numpy()
    sampled = np.intersect1d(rows, export.latents)
    if len(sampled):
        raise UsageError(
            f"of {len(sampled)} latents ({_few(sampled)}) the index keeps a sample of events, which delphi would take "
            'for all: index again with larger --max-events, or leave them out with --where "latent IN (SELECT latent '
            'FROM latents WHERE event_share = 1)"'
        )


def _few(latents: np.ndarray) -> str:
    return ", ".join(map(str, latents[:5].tolist())) + (", …" if len(latents) > 5 else "")


def _edges(width: int) -> list[tuple[int, int]]:
    """First and last latent of each shard, as delphi divides them."""
    bounds = np.unique(np.linspace(0, width, N_SHARDS + 1).astype(np.int64)).tolist()
    return [(first, stop - 1) for first, stop in pairwise(bounds)]


def _padding(export: Export) -> int:
    """The token that fills rows up: BOS, or the first special one there is, or token 0."""
    tokenizer = load_tokenizer(export.origin.model)
    special = sorted(tokenizer.special_ids)
    return tokenizer.bos_id if tokenizer.bos_id is not None else (special[0] if special else 0)


@dataclass(frozen=True)
class Rows:
    """How sequences become rows of one length: a sequence's tokens in order, the last row of each padded."""

    index: FeatureIndex
    asked: int | None

    @cached_property
    def lengths(self) -> np.ndarray:
        """`[n_sequences]` tokens."""
        return np.diff(self.index.tokens.offsets)

    @cached_property
    def ctx(self) -> int:
        """Tokens in a row."""
        if self.asked is not None and not 1 <= self.asked <= MOST_CTX:
            raise UsageError(f"ctx={self.asked} is no length of a row: choose 1 to {MOST_CTX:,}, or leave it out")
        return self.asked or -(-int(self.lengths.max()) // EXAMPLE_CTX) * EXAMPLE_CTX

    @cached_property
    def first(self) -> np.ndarray:
        """`[n_sequences + 1]` each sequence's first row, and the number of rows."""
        return np.concatenate([[0], np.cumsum(-(-self.lengths // self.ctx))])

    @property
    def n_rows(self) -> int:
        """Of the cache."""
        return int(self.first[-1])

    def at(self, seq: np.ndarray, pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and position of each token."""
        return self.first[np.searchsorted(self.index.tokens.seqs, seq)] + pos // self.ctx, pos % self.ctx

    def filled(self, values: np.ndarray, padding: int, dtype: type[np.generic]) -> Iterator[np.ndarray]:
        """`[n, ctx]` of a value for every token, some rows at a time."""
        tokens = self.index.tokens
        for start in range(0, len(self.lengths), ROWS_AT_A_TIME):
            stop = min(start + ROWS_AT_A_TIME, len(self.lengths))
            block = np.full((int(self.first[stop] - self.first[start]), self.ctx), padding, dtype)
            own = values[tokens.offsets[start] : tokens.offsets[stop]]
            length = self.lengths[start:stop]
            row = np.repeat(self.first[start:stop] - self.first[start], length)
            pos = np.arange(len(own)) - np.repeat(tokens.offsets[start:stop] - tokens.offsets[start], length)
            block[row + pos // self.ctx, pos % self.ctx] = own
            yield block


class _Shard:
    """The events of consecutive latents, in files of their own until all are there."""

    def __init__(self, room: Path, first: int, last: int) -> None:
        self.first, self.last, self.n, self.largest = first, last, 0, 0
        self._locations, self._activations = room / f"{first}.locations", room / f"{first}.activations"
        self._locations.touch()
        self._activations.touch()

    def add(self, locations: np.ndarray, activations: np.ndarray) -> None:
        """`[n, 3]` uint32 and `[n]` float16."""
        self.n += len(activations)
        self.largest = max(self.largest, int(locations.max(initial=0)))
        for path, array in ((self._locations, locations), (self._activations, activations)):
            with path.open("ab") as file:
                file.write(np.ascontiguousarray(array).data)

    def assemble(self, folder: Path, rows: Rows, padding: int) -> None:
        """Write the shard's file, of which no more than a few megabytes are in memory."""
        small = self.largest < 2**16
        sizes = {"tokens": rows.n_rows * rows.ctx * 8, "locations": self.n * 3 * (2 if small else 4), "activations": 0}
        sizes["activations"] = self.n * 2
        shapes = {"tokens": [rows.n_rows, rows.ctx], "locations": [self.n, 3], "activations": [self.n]}
        dtypes = {"tokens": "I64", "locations": "U16" if small else "U32", "activations": "F16"}
        header, reached = {}, 0
        for name, size in sizes.items():
            header[name] = {"dtype": dtypes[name], "shape": shapes[name], "data_offsets": [reached, reached + size]}
            reached += size
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)
        with (folder / f"{self.first}_{self.last}.safetensors").open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            for block in rows.filled(rows.index.tokens.token_ids, padding, np.int64):
                file.write(block.data)
            _copy(self._locations, file, np.uint16 if small else np.uint32)
            _copy(self._activations, file, None)


def _copy(path: Path, file: BinaryIO, dtype: type[np.generic] | None) -> None:
    """Append the bytes of `path`; uint32 as `dtype` if one is given."""
    with path.open("rb") as source:
        while piece := source.read(COPY_BYTES):
            file.write(piece if dtype is None else np.frombuffer(piece, np.uint32).astype(dtype).tobytes())
    path.unlink()


def _sort_out(export: Export, rows: Rows, shards: list[_Shard]) -> int:
    """Give every shard its events; how many were too small for delphi to store."""
    stops, n_small = np.array([shard.last + 1 for shard in shards]), 0
    for batch in event_batches(export.index, export.latents):
        large = np.abs(batch["value"]) > THRESHOLD
        n_small += int((~large).sum())
        latent, value = batch["latent"][large], batch["value"][large]
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.isfinite(half).all():
            at = int(np.flatnonzero(~np.isfinite(half))[0])
            raise UsageError(
                f"latent {latent[at]} reaches {value[at]:g}, delphi stores float16, up to 65504: leave it out with "
                "--latents or --where"
            )
        row, pos = rows.at(batch["seq"][large], batch["pos"][large])
        cuts = np.concatenate([[0], np.searchsorted(latent, stops)])
        for shard, start, stop in zip(shards, cuts[:-1], cuts[1:], strict=True):
            if start < stop:
                own = slice(start, stop)
                locations = np.stack([row[own], pos[own], latent[own] - shard.first], axis=1).astype(np.uint32)
                shard.add(locations, half[own])
    return n_small


def _write_counted(path: Path, rows: Rows) -> None:
    counted = CodeFiles(Spill(rows.index.folder), rows.index.tokens).counted()
    with path.open("wb") as file:
        described = {"descr": "|i1", "fortran_order": False, "shape": (rows.n_rows, rows.ctx)}
        np.lib.format.write_array_header_1_0(file, described)
        for block in rows.filled(counted, -1, np.int8):
            file.write(block.data)


def _config(export: Export, rows: Rows, n_shards: int) -> dict[str, object]:
    """delphi's CacheConfig and the model's name, from which it loads the tokenizer."""
    return {
        "dataset_repo": f"monosem harvest {export.index.harvest.id}",
        "dataset_split": "train",
        "dataset_name": "",
        "dataset_column": "text",
        "batch_size": EXAMPLE_CTX,
        "cache_ctx_len": rows.ctx,
        "n_tokens": rows.n_rows * rows.ctx,
        "n_splits": n_shards,
        "model_name": export.cfg.model_name or export.origin.model.removeprefix("hub:"),
    }
