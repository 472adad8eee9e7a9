"""The first half of a harvest: documents and token sequences on disk, before any model runs.

Sequences are written window by window, a window being what is later shuffled together, so that any window can be
computed, computed again or computed elsewhere from its own file. `text.json` is written last and says that all is
there.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activations.encode import EncodedDocument, encodable, encoded
from activations.progress import Progress
from activations.sequences import NumberedDocument, TokenSequence, sequences
from activations.split import Split
from activations.text import Source, TextConfig
from activations.tokenizer import Tokenizer
from store import layout
from store.errors import UsageError
from store.files import file_entry, is_as_written, read_json, whole_file, write_json
from store.tables import DOCUMENTS, SEQUENCES

DOCUMENTS_PER_PART = 1000
PART_CHARS = 50_000_000
"""A part of the documents ends here at the latest, so that long texts do not gather in memory."""


def prepare(
    folder: Path,
    tokenizer: Tokenizer,
    sources: list[Source],
    cfg: TextConfig,
    n_ctx: int,
    window_rows: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write documents and sequences below `folder`; what `text.json` says of them.

    Args:
        folder: of the run.
        tokenizer: the model's.
        sources: where documents come from.
        cfg: which of them, and how sequences are made.
        n_ctx: tokens the model sees at once.
        window_rows: a window ends with the sequence that reaches so many tokens.
        progress: wraps the loop over documents, by tokens.

    Raises:
        UsageError: bad text, or fewer than two documents.
    """
    if (there := prepared(folder)) is not None:
        return there
    writer, split, counts = _Documents(folder), Split(cfg.heldout, cfg.document_seed), _Counts()
    taken = progress(
        _until(encoded(tokenizer, sources, cfg), cfg.n_tokens), cfg.n_tokens, "read and tokenize", weigh=len
    )
    made = sequences(writer.seen(split.numbered(taken)), cfg, n_ctx, tokenizer.bos_id)
    for number, window in enumerate(_windows(made, window_rows)):
        counts.see(window, writer.heldout)
        writer.entries |= _write(folder, layout.token_part(folder, number), _sequence_table(window))
    writer.close()
    counts.check(cfg)
    summary = {**writer.figures, **counts.figures, "heldout_up_to": split.bound, "bos_id": tokenizer.bos_id}
    # Ends of documents too short for a row of their own, and what `overlong` leaves out.
    summary["n_tokens_dropped"] = writer.n_tokens - (counts.n_tokens - counts.n_bos)
    write_json(folder / layout.TEXT, {**summary, "windows": counts.windows, "files": writer.entries})
    return read_json(folder / layout.TEXT)


def prepared(folder: Path) -> dict[str, Any] | None:
    """What `text.json` says, where it is there and all files it names are as they were written."""
    if not (folder / layout.TEXT).exists():
        return None
    try:
        found = read_json(folder / layout.TEXT)
    except UsageError:
        return None
    whole = all(is_as_written(folder / name, entry) for name, entry in found["files"].items())
    return found if whole else None


class _Counts:
    """What sequences amount to."""

    def __init__(self) -> None:
        self.windows: list[dict[str, int]] = []
        self.n_sequences = {False: 0, True: 0}
        """By whether they are held out."""
        self.n_tokens = self.n_bos = 0

    def see(self, window: list[TokenSequence], heldout: Sequence[int]) -> None:
        self.windows.append({"n_sequences": len(window), "n_rows": sum(map(len, window))})
        self.n_tokens += self.windows[-1]["n_rows"]
        for sequence in window:
            self.n_sequences[bool(heldout[sequence.doc_ids[0]])] += 1
            self.n_bos += int((sequence.char_start == -1).sum())

    @property
    def figures(self) -> dict[str, int]:
        return {
            "n_sequences": sum(self.n_sequences.values()),
            "n_sequences_heldout": self.n_sequences[True],
            "n_tokens": self.n_tokens,
        }

    def check(self, cfg: TextConfig) -> None:
        """Refuse a text with nothing to train on or nothing to hold out."""
        empty = [name for held, name in ((False, "training"), (True, "held-out")) if not self.n_sequences[held]]
        if empty:
            raise UsageError(
                f"no sequence is left for {' and '.join(empty)} documents: harvest more text, or another --overlong "
                f"than {cfg.overlong}, --heldout than {cfg.heldout} or --document-seed than {cfg.document_seed}"
            )


def read_window(folder: Path, window: int) -> list[TokenSequence]:
    """The sequences of one window.

    Raises:
        UsageError: the file is missing or damaged.
    """
    path = layout.token_part(folder, window)
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path} cannot be read ({error}): `monosem harvest --repair {folder.name}`") from error
    bounds = table.column("token_ids").combine_chunks().offsets.to_numpy()
    flat = {field: table.column(column).combine_chunks().flatten().to_numpy() for field, column in COLUMN_OF.items()}
    return [
        TokenSequence(seq=seq, **{field: column[start:stop] for field, column in flat.items()})
        for seq, start, stop in zip(table.column("seq").to_pylist(), bounds[:-1], bounds[1:], strict=True)
    ]


def heldout_sequences(folder: Path, n: int, seed: int) -> list[TokenSequence]:
    """`n` sequences of held-out documents, drawn at random; all of them if there are fewer."""
    heldout = heldout_documents(folder)
    found: list[tuple[int, int]] = []
    for window, path in enumerate(layout.token_parts(folder)):
        doc_ids = pq.read_table(path, columns=["doc_ids"]).column("doc_ids").combine_chunks()
        # Documents of both splits never share a sequence: the first token's tells.
        first = doc_ids.flatten().to_numpy()[doc_ids.offsets.to_numpy()[:-1]]
        found += [(window, int(place)) for place in np.flatnonzero(heldout[first])]
    chosen: dict[int, list[int]] = {}
    for at in sorted(np.random.default_rng(seed).permutation(len(found))[:n]):
        window, place = found[at]
        chosen.setdefault(window, []).append(place)
    windows = ((read_window(folder, window), places) for window, places in chosen.items())
    return [window[place] for window, places in windows for place in places]


def heldout_documents(folder: Path) -> np.ndarray:
    """`[n_docs]` bool: which documents of a harvest are held out of training.

    Raises:
        UsageError: a file is missing or damaged.
    """
    try:
        tables = [pq.read_table(path, columns=["split"]) for path in layout.document_parts(folder)]
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"documents of {folder} cannot be read ({error}): `monosem harvest --repair`") from error
    return pa.concat_tables(tables).column("split").to_numpy() == "heldout"


COLUMN_OF = {
    "ids": "token_ids",
    "doc_ids": "doc_ids",
    "char_start": "char_start",
    "char_end": "char_end",
    "text_class": "text_class",
}
"""The stored column of each field of a sequence."""


def _until(documents: Iterable[EncodedDocument], n_tokens: int) -> Iterator[EncodedDocument]:
    """Documents until there are so many tokens."""
    taken = 0
    for document in documents:
        yield document
        taken += len(document)
        if taken >= n_tokens:
            return


def _windows(all_sequences: Iterable[TokenSequence], window_rows: int) -> Iterator[list[TokenSequence]]:
    window: list[TokenSequence] = []
    n_rows = 0
    for sequence in all_sequences:
        window.append(sequence)
        n_rows += len(sequence)
        if n_rows >= window_rows:
            yield window
            window, n_rows = [], 0
    if window:
        yield window


class _Documents:
    """Counts documents as they go by, and writes them in parts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[NumberedDocument] = []
        self._n_chars = self._n_parts = 0
        self.heldout = bytearray()
        """By document: whether it is held out."""
        self.n_cut = self.n_tokens = 0
        self.entries: dict[str, dict[str, Any]] = {}
        """Checksums of the files written, by name."""

    @property
    def figures(self) -> dict[str, int]:
        return {
            "n_documents": len(self.heldout),
            "n_documents_heldout": sum(self.heldout),
            "n_documents_cut": self.n_cut,
        }

    def seen(self, documents: Iterable[NumberedDocument]) -> Iterator[NumberedDocument]:
        for document in documents:
            self.heldout.append(document.heldout)
            self.n_cut += document.tokens.cut
            self.n_tokens += len(document.tokens)
            self._waiting.append(document)
            self._n_chars += len(document.tokens.document.text)
            if len(self._waiting) == DOCUMENTS_PER_PART or self._n_chars > PART_CHARS:
                self.close()
            yield document

    def close(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            path = layout.document_part(self._folder, self._n_parts)
            self.entries |= _write(self._folder, path, _document_table(self._waiting))
            self._n_parts += 1
            self._waiting, self._n_chars = [], 0


def _document_table(documents: list[NumberedDocument]) -> pa.Table:
    columns = {
        "doc_id": [document.doc_id for document in documents],
        "source": [encodable(document.tokens.document.source) for document in documents],
        "title": [encodable(document.tokens.document.title) for document in documents],
        "split": ["heldout" if document.heldout else "train" for document in documents],
        "n_tokens": [len(document.tokens) for document in documents],
        "text": [document.tokens.document.text for document in documents],
    }
    return pa.table({name: pa.array(values, DOCUMENTS.field(name).type) for name, values in columns.items()})


def _sequence_table(window: list[TokenSequence]) -> pa.Table:
    bounds = np.concatenate([[0], np.cumsum([len(sequence) for sequence in window])]).astype(np.int32)
    columns: dict[str, pa.Array] = {"seq": pa.array([sequence.seq for sequence in window], pa.int32())}
    for field, column in COLUMN_OF.items():
        flat = pa.array(np.concatenate([getattr(sequence, field) for sequence in window]))
        columns[column] = pa.ListArray.from_arrays(bounds, flat).cast(SEQUENCES.field(column).type)
    return pa.table({name: columns[name] for name in SEQUENCES.names})


def _write(folder: Path, path: Path, table: pa.Table) -> dict[str, dict[str, Any]]:
    """The file's entry, by name."""
    with whole_file(path) as scratch:
        pq.write_table(table, scratch, compression="zstd")
    return {path.relative_to(folder).as_posix(): file_entry(path)._asdict()}
