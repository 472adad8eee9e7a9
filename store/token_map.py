"""All tokens of a harvest end to end, with the text they stand for, as flat files that are mapped into memory.

A *place* is an index into the tokens of all sequences in order of `seq`. A *piece* is a run of tokens of one document
in one sequence: what a window never reaches out of. An index keeps this once, for all its latents; whoever shows,
searches or counts tokens slices it, so that a window costs microseconds and memory is the operating system's.
"""

import mmap
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from store import layout
from store.errors import UsageError
from store.files import disk_errors, remove_partials, whole_file

TEXT = "documents.utf8"
CHUNK = 1 << 20
"""Tokens looked at together."""
SEPARATOR = b"\xff"
"""Stands after every document: no text has this byte, so no search goes across two documents."""
TOKEN_FILES = {
    "token_ids": np.int32,
    "char_start": np.int32,
    "char_end": np.int32,
    "byte_start": np.int64,
    "byte_end": np.int64,
    "text_class": np.int8,
}
"""`[n_tokens]` each. Characters are of the document, -1 where a token stands for no text; bytes are of TEXT."""
FLAT = ("token_ids", "doc_ids", "char_start", "char_end", "text_class")
"""Columns of sequences that hold a value for each token."""
OTHER_FILES = ("seqs", "offsets", "windows", "piece_start", "piece_stop", "piece_first", "piece_doc", "doc_bytes")


class Spans(NamedTuple):
    """Windows `start <= place < stop`."""

    start: np.ndarray
    stop: np.ndarray


class TokenMap:
    """The tokens of a harvest, read from a folder that `write_token_map` filled."""

    def __init__(self, folder: Path) -> None:
        """Map the files in `folder`.

        Raises:
            UsageError: one is missing or damaged.
        """
        try:
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in TOKEN_FILES}
            self.text: np.ndarray = np.asarray(np.memmap(folder / TEXT, mode="r", dtype=np.uint8))
            """`[n_bytes]` uint8: every document in order, each with a separator after it."""
            others = {name: np.load(folder / f"{name}.npy") for name in OTHER_FILES}
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{folder} is damaged ({error}): mend it with `monosem index --repair`") from error
        self._mapped = tuple(arrays.values())
        # Plain arrays over the same memory: a slice of numpy's memmap costs ten times as much.
        self.token_ids: np.ndarray = np.asarray(arrays["token_ids"])
        self.char_start: np.ndarray = np.asarray(arrays["char_start"])
        self.char_end: np.ndarray = np.asarray(arrays["char_end"])
        self.byte_start: np.ndarray = np.asarray(arrays["byte_start"])
        self.byte_end: np.ndarray = np.asarray(arrays["byte_end"])
        self.text_class: np.ndarray = np.asarray(arrays["text_class"])
        self.seqs: np.ndarray = others["seqs"]
        """`[n_sequences]` ascending."""
        self.offsets: np.ndarray = others["offsets"]
        """`[n_sequences + 1]` place of each sequence's first token, and the number of tokens."""
        self.windows: np.ndarray = others["windows"]
        """`[n_windows + 1]` place of the first token of each of the harvest's windows, and the number of tokens."""
        self.piece_first: np.ndarray = others["piece_first"]
        """`[n_pieces]` place of each piece's first token, ascending."""
        self.piece_start: np.ndarray = others["piece_start"]
        """`[n_pieces]` place of its first token that stands for text; with `piece_stop`, empty if it has none."""
        self.piece_stop: np.ndarray = others["piece_stop"]
        self.piece_doc: np.ndarray = others["piece_doc"]
        """`[n_pieces]` its document."""
        self.doc_bytes: np.ndarray = others["doc_bytes"]
        """`[n_docs + 1]` where each document begins in `text`."""

    def __len__(self) -> int:
        """Tokens."""
        return len(self.token_ids)

    @property
    def n_docs(self) -> int:
        """Documents."""
        return len(self.doc_bytes) - 1

    @cached_property
    def piece_row(self) -> np.ndarray:
        """`[n_pieces]` the how-manieth sequence each piece is in."""
        return np.searchsorted(self.offsets, self.piece_first, "right") - 1

    def places(self, seq: np.ndarray, pos: np.ndarray) -> np.ndarray:
        """`[n]` int64: where the tokens at `pos` of `seq` are."""
        return self.offsets[np.searchsorted(self.seqs, seq)] + pos

    def positions(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`seq` and `pos` of each place."""
        row = np.searchsorted(self.offsets, places, "right") - 1
        return self.seqs[row], (places - self.offsets[row]).astype(np.int32)

    def pieces(self, places: np.ndarray) -> np.ndarray:
        """`[n]` the piece of each place."""
        return np.searchsorted(self.piece_first, places, "right") - 1

    def documents(self, places: np.ndarray) -> np.ndarray:
        """`[n]` the document of each place."""
        return self.piece_doc[self.pieces(places)]

    def spans(self, places: np.ndarray, before: int, after: int) -> Spans:
        """Windows around `places`, inside their documents and without BOS or separators at their ends."""
        piece = self.pieces(places)
        start = np.maximum(places - before, self.piece_start[piece])
        stop = np.minimum(places + after + 1, self.piece_stop[piece])
        # The place itself always stays, whatever it is.
        start, stop = np.minimum(start, places), np.maximum(stop, places + 1)
        # Inside a document too there may be tokens of no text.
        while (off := (start < places) & self._is_textless(start)).any():
            start += off
        while (off := (stop > places + 1) & self._is_textless(stop - 1)).any():
            stop -= off
        return Spans(start, stop)

    @cached_property
    def textless(self) -> np.ndarray:
        """`[n]` places of tokens that stand for no text, ascending."""
        pieces = [
            start + np.flatnonzero(self.char_start[start : start + CHUNK] < 0) for start in range(0, len(self), CHUNK)
        ]
        return np.concatenate(pieces)

    def _is_textless(self, places: np.ndarray) -> np.ndarray:
        if not len(self.textless):
            return np.zeros(len(places), bool)
        at = np.searchsorted(self.textless, places)
        return self.textless[np.minimum(at, len(self.textless) - 1)] == places

    def release(self) -> None:
        """Give the memory of mapped files back to the system; they are mapped again where they are looked at."""
        advice = getattr(mmap, "MADV_DONTNEED", None)
        if advice is not None:
            for array in self._mapped:
                array._mmap.madvise(advice)

    def bytes_of(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """`[n]` each: where the tokens' own bytes begin and end. Joined, they are the text from the first to the last.

        What lies between two tokens (a space that the tokenizer drops) belongs to the later one; tokens that share a
        character (one of several byte tokens) give it to the first of them; a token of no text has none.
        """
        begins, ends = self.byte_start[start:stop], self.byte_end[start:stop]
        has_text = self.char_start[start:stop] >= 0
        if not has_text.any():
            return np.zeros(stop - start, np.int64), np.zeros(stop - start, np.int64)
        first = begins[has_text][0]
        reached = np.maximum.accumulate(np.where(has_text, ends, first))
        before = np.concatenate([[first], reached[:-1]])
        return before, np.maximum(reached, before)

    def texts(self, start: int, stop: int) -> tuple[str, ...]:
        """The text of each token; joined, the document's own text."""
        begins, ends = self.bytes_of(start, stop)
        if not len(begins):
            return ()
        base = int(begins[0])
        text = self.text[base : int(ends[-1])].tobytes()
        return tuple(
            text[begin - base : end - base].decode() for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        )

    def document(self, doc_id: int) -> str:
        """The text of a document."""
        return self.text[self.doc_bytes[doc_id] : self.doc_bytes[doc_id + 1] - 1].tobytes().decode()


def write_token_map(folder: Path, harvest: Path) -> None:
    """Lay out the tokens and documents of the harvest in `harvest`, a part at a time.

    Raises:
        UsageError: the disk is full, or the harvest has no tokens.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)
    doc_bytes = _write_documents(folder, harvest)
    parts = layout.token_parts(harvest)
    n_tokens = sum(_n_tokens(path) for path in parts)
    if not n_tokens:
        raise UsageError(f"{harvest} has no token: mend it with `monosem harvest --repair {harvest.name}`")
    text = np.memmap(folder / TEXT, mode="r", dtype=np.uint8)
    sequences, pieces, windows = _Sequences(), _Pieces(), [0]
    with ExitStack() as stack:
        files = {name: _npy_file(stack, folder, name, n_tokens) for name in TOKEN_FILES}
        for path in parts:
            table = pq.read_table(path, columns=["seq", *FLAT]).sort_by("seq").combine_chunks()
            lengths = table.column("token_ids").combine_chunks().value_lengths().to_numpy()
            flat = {name: table.column(name).combine_chunks().flatten().to_numpy() for name in FLAT}
            found = pieces.add(flat["doc_ids"], flat["char_start"], lengths, windows[-1])
            columns = flat | _byte_spans(flat, found, text, doc_bytes)
            for name, dtype in TOKEN_FILES.items():
                files[name].write(columns[name].astype(dtype).data)
            sequences.add(table.column("seq").to_numpy(), lengths)
            windows.append(windows[-1] + int(lengths.sum()))
    others = {"doc_bytes": doc_bytes, "windows": np.array(windows, np.int64), **sequences.arrays(), **pieces.arrays()}
    for name in OTHER_FILES:
        with whole_file(folder / f"{name}.npy") as scratch, scratch.open("wb") as handle:
            np.save(handle, others[name], allow_pickle=False)


def _write_documents(folder: Path, harvest: Path) -> np.ndarray:
    """All texts, in order of `doc_id`; returns where each begins."""
    sizes: list[int] = [0]
    with whole_file(folder / TEXT) as scratch, scratch.open("wb") as handle:
        for path in layout.document_parts(harvest):
            table = pq.read_table(path, columns=["doc_id", "text"])
            if table.column("doc_id").to_pylist() != list(range(len(sizes) - 1, len(sizes) - 1 + len(table))):
                raise UsageError(f"{path} lacks documents: mend it with `monosem harvest --repair {harvest.name}`")
            for text in table.column("text").to_pylist():
                encoded = text.encode() + SEPARATOR
                handle.write(encoded)
                sizes.append(len(encoded))
    return np.cumsum(sizes, dtype=np.int64)


def _npy_file(stack: ExitStack, folder: Path, name: str, n: int) -> BinaryIO:
    """A flat array to be written piece by piece, whole or absent when the stack unwinds."""
    handle = stack.enter_context(stack.enter_context(whole_file(folder / f"{name}.npy")).open("wb"))
    described = {"descr": np.dtype(TOKEN_FILES[name]).str, "fortran_order": False, "shape": (n,)}
    np.lib.format.write_array_header_1_0(handle, described)
    return handle


class _Sequences:
    def __init__(self) -> None:
        self._seqs: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []

    def add(self, seqs: np.ndarray, lengths: np.ndarray) -> None:
        self._seqs.append(seqs)
        self._lengths.append(lengths)

    def arrays(self) -> dict[str, np.ndarray]:
        lengths = np.concatenate([np.zeros(1, np.int64), *self._lengths])
        return {"seqs": np.concatenate(self._seqs), "offsets": np.cumsum(lengths, dtype=np.int64)}


class _Piece(NamedTuple):
    """Of one part: where pieces begin, counted within the part, and their documents."""

    first: np.ndarray
    doc: np.ndarray


class _Pieces:
    def __init__(self) -> None:
        self._found: dict[str, list[np.ndarray]] = {"first": [], "start": [], "stop": [], "doc": []}

    def add(self, doc_ids: np.ndarray, char_start: np.ndarray, lengths: np.ndarray, base: int) -> _Piece:
        begins = np.zeros(len(doc_ids), bool)
        begins[1:] = doc_ids[1:] != doc_ids[:-1]
        begins[np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)] = True
        first = np.flatnonzero(begins)
        ends = np.append(first[1:], len(doc_ids))
        text = np.flatnonzero(char_start >= 0)
        low, high = np.searchsorted(text, first), np.searchsorted(text, ends)
        has_text = low < high
        start = np.where(has_text, text.take(low, mode="clip") if len(text) else first, first)
        stop = np.where(has_text, (text.take(high - 1, mode="clip") if len(text) else first) + 1, first)
        found = {"first": first, "start": start, "stop": stop}
        for name, values in found.items():
            self._found[name].append(values + base)
        self._found["doc"].append(doc_ids[first])
        return _Piece(first, doc_ids[first])

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"piece_{name}": np.concatenate(values).astype(np.int64) for name, values in self._found.items()}


def _byte_spans(
    flat: dict[str, np.ndarray], pieces: _Piece, text: np.ndarray, doc_bytes: np.ndarray
) -> dict[str, np.ndarray]:
    """Where each token's characters begin and end in all texts' bytes."""
    base = doc_bytes[flat["doc_ids"]]
    starts = base + np.maximum(flat["char_start"], 0)
    ends = base + np.maximum(flat["char_end"], 0)
    looked_at, at = -1, None
    for first, stop, doc in _runs(pieces, len(base)):
        if doc != looked_at:  # a long document is many pieces
            looked_at, at = doc, _characters(text[doc_bytes[doc] : doc_bytes[doc + 1] - 1])
        if at is not None:
            starts[first:stop] = doc_bytes[doc] + at[np.maximum(flat["char_start"][first:stop], 0)]
            ends[first:stop] = doc_bytes[doc] + at[np.maximum(flat["char_end"][first:stop], 0)]
    return {"byte_start": starts, "byte_end": ends}


def _characters(own: np.ndarray) -> np.ndarray | None:
    """`[n_chars + 1]` where each character begins among the bytes; None where each is one byte."""
    if own.max(initial=0) < 128:
        return None
    # A byte that goes on with a character is 10xxxxxx.
    return np.append(np.flatnonzero((own & 0xC0) != 0x80), len(own))


def _runs(pieces: _Piece, n: int) -> Iterator[tuple[int, int, int]]:
    stops = np.append(pieces.first[1:], n)
    yield from zip(pieces.first.tolist(), stops.tolist(), pieces.doc.tolist(), strict=True)


def _n_tokens(path: Path) -> int:
    lengths = pq.read_table(path, columns=["token_ids"]).column("token_ids").combine_chunks().value_lengths()
    return int(lengths.to_numpy().sum())
