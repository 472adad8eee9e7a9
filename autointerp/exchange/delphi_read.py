"""delphi's latent cache as an index: its rows are the documents, its tokens decoded the text, its events the events.

There is no dictionary and no vector, so the index has no output side and no decoder neighbours; whatever follows from
what fires where is there, and explainers, scorers and SQL need no more.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activations.models import load_tokenizer
from activations.progress import Progress, no_progress
from activations.tokenizer import Tokenizer
from autointerp.exchange.delphi_cache import Cache, open_cache
from autointerp.exchange.spelled import Spelled, spell, vocabulary
from autointerp.index.config import IndexConfig
from autointerp.index.encode import Codes
from autointerp.index.given import index_codes
from store import layout
from store.errors import UsageError
from store.files import whole_file
from store.hashing import content_hash, plain, sha256_file
from store.index import publish
from store.run import Run, start_run
from store.shards import TOKEN_CLASSES
from store.tables import DOCUMENTS, SEQUENCES

VERSION = 1
WINDOW_TOKENS, WINDOW_EVENTS = 1 << 20, 4_000_000
"""Tokens and events of a window at most, about: what is in memory at a time."""
ROOM = ".import"
EVENT = np.dtype([("key", "<u8"), ("value", "<f4")])
"""An event of a window: its token's number in the upper 32 bits, its latent in the lower, and its value."""


@dataclass(frozen=True, kw_only=True)
class DelphiConfig:
    """What to make of a cache."""

    model: str | None = None
    """The model whose tokenizer wrote the tokens, as `monosem harvest` takes it; by default what the cache names."""
    hook_point: str | None = None
    """Which cache of several."""
    index: IndexConfig = field(default_factory=IndexConfig)


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """What the text of an imported index is."""

    format: str
    model: str
    """Whose tokenizer decodes it."""
    hook_point: str
    """As the origin calls it."""
    origin: str
    """Where it was read from."""


def import_delphi(cfg: DelphiConfig, path: Path, root: Path, progress: Progress = no_progress) -> Run:
    """Make and publish `root/index/<hash>` of the cache in `path`, or return what is already there.

    Raises:
        UsageError: no cache there, or a damaged one; a tokenizer that does not have its tokens; no latent fires.
    """
    cache = open_cache(path, cfg.hook_point)
    reference = cfg.model or cache.config.get("model_name")
    if not isinstance(reference, str) or not reference:
        raise UsageError(
            f"{cache.folder / 'config.json'} names no model: give --model, whose tokenizer wrote the tokens"
        )
    tokenizer = load_tokenizer(reference)
    _check_tokens(cache, tokenizer, reference)
    contents = content_hash([[file.name, sha256_file(file)] for file in cache.files])
    same = {"cache": contents, "tokenizer": tokenizer.fingerprint, "hook_point": cache.hook_point, "version": VERSION}
    work = _Import(cache, tokenizer, cfg.index, progress)
    named = TextConfig(format="delphi", model=reference, hook_point=cache.hook_point, origin=str(path.resolve()))
    with start_run(root, "text", named, {}, same) as text:
        if not text.finished:
            text.finish(work.write_text(text.folder))
    with start_run(root, "index", cfg.index, {"text": text.id}, same={**plain(asdict(cfg.index)), **same}) as run:
        if not run.finished:
            run.finish(work.index(run.folder, text.folder))
        publish(run)
        return run


def _check_tokens(cache: Cache, tokenizer: Tokenizer, reference: str) -> None:
    low, high = int(cache.tokens.min()), int(cache.tokens.max())
    if low < 0 or high >= tokenizer.d_vocab:
        raise UsageError(
            f"{cache.shards[0].path}: token {low if low < 0 else high} is none of {reference}, which has 0 to "
            f"{tokenizer.d_vocab - 1}: name the model that the cache is of with --model"
        )


@dataclass(frozen=True)
class _Import:
    cache: Cache
    tokenizer: Tokenizer
    cfg: IndexConfig
    progress: Progress

    @property
    def rows(self) -> int:
        """Of a window."""
        n_rows, ctx = self.cache.tokens.shape
        n_windows = max(-(-n_rows * ctx // WINDOW_TOKENS), -(-self.cache.n_events // WINDOW_EVENTS))
        return -(-n_rows // n_windows)

    @property
    def windows(self) -> list[slice]:
        """Rows of each window."""
        n_rows = len(self.cache.tokens)
        return [slice(start, min(start + self.rows, n_rows)) for start in range(0, n_rows, self.rows)]

    def lengths(self, rows: slice) -> np.ndarray:
        """`[n]` tokens of each row that are not padding."""
        shape = self.cache.tokens[rows].shape
        if self.cache.counted is None:
            return np.full(shape[0], shape[1])
        real = self.cache.counted[rows] >= 0
        if not real[:, 0].all() or (real[:, 1:] > real[:, :-1]).any():
            raise UsageError(f"{self.cache.folder}: counted.npy has padding before tokens: delete it, or export again")
        return real.sum(axis=1)

    def write_text(self, folder: Path) -> dict[str, int]:
        """Documents and sequences in a harvest's layout: a row is one of each."""
        words, n_tokens = vocabulary(self.tokenizer), 0
        for window, rows in enumerate(self.progress(self.windows, len(self.windows), "decode the text")):
            ids = [row[:n] for row, n in zip(self.cache.tokens[rows], self.lengths(rows).tolist(), strict=True)]
            spelled = [spell(self.tokenizer, words, row.tolist()) for row in ids]
            _write(layout.document_part(folder, window), self._documents(rows, spelled))
            _write(layout.token_part(folder, window), self._sequences(rows, ids, spelled))
            n_tokens += sum(map(len, ids))
        return {"n_documents": len(self.cache.tokens), "n_tokens": n_tokens}

    def _documents(self, rows: slice, spelled: list[Spelled]) -> pa.Table:
        columns = {
            "doc_id": list(range(rows.start, rows.stop)),
            "source": [f"delphi {self.cache.hook_point}"] * len(spelled),
            "title": [f"row {row}" for row in range(rows.start, rows.stop)],
            "split": ["train"] * len(spelled),
            "n_tokens": [int((each.char_start >= 0).sum()) for each in spelled],
            "text": [each.text for each in spelled],
        }
        return pa.table(columns, schema=DOCUMENTS)

    def _sequences(self, rows: slice, ids: list[np.ndarray], spelled: list[Spelled]) -> pa.Table:
        classes = [np.where(each.char_start < 0, TOKEN_CLASSES["special"], TOKEN_CLASSES["normal"]) for each in spelled]
        columns = {
            "seq": np.arange(rows.start, rows.stop),
            "token_ids": ids,
            "doc_ids": [
                np.full(len(row), number) for number, row in zip(range(rows.start, rows.stop), ids, strict=True)
            ],
            "char_start": [each.char_start for each in spelled],
            "char_end": [each.char_end for each in spelled],
            "text_class": classes,
        }
        return pa.table({name: pa.array(columns[name], SEQUENCES.field(name).type) for name in SEQUENCES.names})

    def index(self, folder: Path, text: Path) -> dict[str, float | int]:
        """Every table of the index."""
        room = folder / ROOM
        shutil.rmtree(room, ignore_errors=True)
        try:
            self._sort_out(room)
            left_out = _Counter()
            codes = self._codes(room, text, left_out)
            words = vocabulary(self.tokenizer)
            results = index_codes(folder, text, codes, self.cache.d_sae, words, self.cfg, self.progress)
        finally:
            shutil.rmtree(room, ignore_errors=True)
        return {**results, "n_left_out": left_out.n}

    def _sort_out(self, room: Path) -> None:
        """Every window's events in a file of its own: shards have them by latent, the index wants them by token."""
        room.mkdir(parents=True)
        ctx = self.cache.tokens.shape[1]
        for shard in self.progress(self.cache.shards, len(self.cache.shards), "read the events"):
            for events in shard.events():
                on = events.value != 0
                window = events.row // self.rows
                found = np.empty(len(window), EVENT)
                token = (events.row % self.rows) * ctx + events.pos
                found["key"] = (token.astype(np.uint64) << np.uint64(32)) | events.latent.astype(np.uint64)
                found["value"] = events.value
                for number in np.unique(window[on]).tolist():
                    with (room / f"{number:05d}").open("ab") as file:
                        file.write(found[on & (window == number)].data)

    def _codes(self, room: Path, text: Path, left_out: "_Counter") -> Iterator[Codes]:
        for window, rows in enumerate(self.windows):
            file = room / f"{window:05d}"
            found = np.fromfile(file, EVENT) if file.exists() else np.empty(0, EVENT)
            found = found[np.argsort(found["key"])]
            self._check_once(found["key"], rows)
            classes = pq.read_table(layout.token_part(text, window), columns=["text_class"]).column("text_class")
            codes, n = self._window(found, rows, classes.combine_chunks().flatten().to_numpy())
            left_out.n += n
            yield codes

    def _check_once(self, keys: np.ndarray, rows: slice) -> None:
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            token, latent = divmod(int(keys[twice[0]]), 1 << 32)
            row, pos = divmod(token, self.cache.tokens.shape[1])
            raise UsageError(
                f"{self.cache.shard_of(latent).path}: latent {latent} is at row {rows.start + row}, position {pos} "
                "twice: cache the activations again"
            )

    def _window(self, found: np.ndarray, rows: slice, classes: np.ndarray) -> tuple[Codes, int]:
        """A window's codes, and how many events are on tokens that do not count."""
        lengths, ctx = self.lengths(rows), self.cache.tokens.shape[1]
        token, latent = found["key"] >> np.uint64(32), (found["key"] & np.uint64(2**32 - 1)).astype(np.int64)
        row, pos = np.divmod(token.astype(np.int64), ctx)
        if (beyond := np.flatnonzero(pos >= lengths[row])).size:
            at = beyond[0]
            raise UsageError(
                f"{self.cache.folder}: latent {latent[at]} fires on padding, at row {rows.start + row[at]}"
            )
        place = np.concatenate([[0], np.cumsum(lengths)])[row] + pos
        counted = self._counted(rows, lengths, classes)
        keys = classes[place].astype(np.int64) * self.cache.d_sae + latent
        by_class = np.bincount(keys, minlength=len(TOKEN_CLASSES) * self.cache.d_sae)
        on = counted[place]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(place[on], minlength=len(classes)))]).astype(np.int64)
        shaped = by_class.reshape(len(TOKEN_CLASSES), self.cache.d_sae).astype(np.int64)
        return Codes(offsets, latent[on].astype(np.int32), found["value"][on], counted, shaped), int((~on).sum())

    def _counted(self, rows: slice, lengths: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """`[n_tokens]`: as the export says, or else of a class that counts and no row's first."""
        inside = np.arange(self.cache.tokens.shape[1]) < lengths[:, None]
        if self.cache.counted is not None:
            return (self.cache.counted[rows] > 0)[inside]
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        counted = np.isin(classes, [TOKEN_CLASSES[name] for name in self.cfg.classes])
        counted[first] = False
        return counted


class _Counter:
    def __init__(self) -> None:
        self.n = 0


def _write(path: Path, table: pa.Table) -> None:
    with whole_file(path) as scratch:
        pq.write_table(table, scratch, compression="zstd")
