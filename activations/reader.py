"""Harvested activations read back, by split, token class and document: in order, shuffled, or as statistics.

Vectors come in blocks: a shard of a harvest that stored them, a window computed again of one that did not. Whoever
reads need not know which.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from activations.prepare import heldout_documents
from activations.recompute import Recomputer
from activations.shuffle import OpenRows, Shuffled, ShuffleState
from activations.statistics import Group, Moments, chosen, read_statistics
from store import layout
from store.errors import UsageError
from store.hashing import content_hash
from store.run import Run
from store.shards import TOKEN_CLASSES, Rows, Shard

CHUNK_ROWS = 8192


@runtime_checkable
class Block(Protocol):
    """Rows that lie together."""

    @property
    def n_rows(self) -> int:
        """How many."""
        ...

    @property
    def window(self) -> int:
        """Which window they are of."""
        ...

    def open(self) -> OpenRows:
        """The rows: vectors, and the columns that join them to their text."""
        ...

    def columns(self) -> dict[str, np.ndarray]:
        """The columns alone, as cheaply as they can be had."""
        ...


@dataclass(frozen=True)
class StoredBlock:
    """A shard; opened anew whenever it is read, so that any number of them costs neither memory nor open files."""

    path: Path
    n_rows: int
    d_in: int

    @property
    def window(self) -> int:
        """Which window its rows are of."""
        return layout.window_of(self.path)

    def open(self) -> Rows:
        """Vectors as a memory map."""
        shard = Shard(self.path)
        if shard.d_in != self.d_in or shard.n_rows != self.n_rows:
            raise UsageError(
                f"{self.path} has {shard.n_rows} rows of width {shard.d_in}, its harvest {self.n_rows} of {self.d_in}: "
                "`monosem verify` names what else is broken, `monosem harvest --repair` mends it"
            )
        return Rows(vectors=shard.vectors, columns=shard.columns)

    def columns(self) -> dict[str, np.ndarray]:
        """From the shard's other columns."""
        return Shard(self.path).columns


@dataclass(frozen=True)
class RecomputedBlock:
    """A window, computed when it is opened."""

    recomputer: Recomputer
    window: int
    hook_point: str

    @property
    def n_rows(self) -> int:
        """Tokens of the window."""
        return self.recomputer.n_rows(self.window)

    def open(self) -> Rows:
        """Through the model."""
        return self.recomputer.rows(self.window, self.hook_point)

    def columns(self) -> dict[str, np.ndarray]:
        """From the text alone: a sink that only its norm tells has the class of its token."""
        return self.recomputer.columns(self.window, self.hook_point)


@runtime_checkable
class Readable(Protocol):
    """What rows are chosen from: one hook point, or several side by side."""

    @property
    def name(self) -> str:
        """Tells it from any other."""
        ...

    @property
    def dtype(self) -> str:
        """Of its vectors."""
        ...

    @property
    def is_stored(self) -> bool:
        """Whether vectors are on disk; otherwise a model computes them whenever they are read."""
        ...

    @property
    def blocks(self) -> Sequence[Block]:
        """Where its rows lie."""
        ...


@dataclass(frozen=True)
class Selection:
    """Which rows are wanted."""

    split: str
    """`train`, `heldout` or `all`."""
    classes: tuple[str, ...]
    first: bool
    """Whether first positions are wanted too, where their class is."""
    documents: frozenset[int] | None
    """Only rows of these, if given."""
    heldout: np.ndarray
    """`[n_documents]` bool."""

    @property
    def name(self) -> str:
        """Tells it from any other."""
        documents = None if self.documents is None else sorted(self.documents)
        return content_hash([self.split, sorted(self.classes), self.first, documents])

    def of(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """The numbers of the rows that are; with classes `[n, n_members]`, those wanted at every member."""
        keep = np.isin(columns["token_class"], [TOKEN_CLASSES[name] for name in self.classes])
        if keep.ndim > 1:
            keep = keep.all(axis=1)
        if not self.first:
            keep &= columns["pos"] > 0
        if self.split != "all":
            keep &= self.heldout[columns["doc_id"]] == (self.split == "heldout")
        if self.documents is not None:
            keep &= np.isin(columns["doc_id"], list(self.documents))
        return np.flatnonzero(keep)


class Activations:
    """One hook point of a finished harvest."""

    def __init__(self, run: Run, hook_point: str | None = None) -> None:
        """Open `hook_point`, or the only one there is.

        Raises:
            UsageError: the harvest has no such hook point, or several and none is named.
        """
        known = run.config["harvest"]["hook_points"]
        if hook_point is None and len(known) > 1:
            raise UsageError(
                f"harvest {run.id} has {len(known)} hook points: name one with --hook-points: {', '.join(known)}"
            )
        self.hook_point: str = hook_point or known[0]
        if self.hook_point not in known:
            raise UsageError(f"harvest {run.id} has no '{hook_point}': it has {', '.join(known)}")
        self.run = run
        self.dtype: str = run.config["harvest"]["dtype"]
        self.blocks: Sequence[StoredBlock] | Sequence[RecomputedBlock] = self._blocks()

    def _blocks(self) -> "Sequence[StoredBlock] | Sequence[RecomputedBlock]":
        if self.is_stored:
            paths = layout.shards(self.run.folder, self.hook_point)
            return [StoredBlock(path, self._entry(path)["n_rows"], self.d_in) for path in paths]
        return recomputed(Recomputer(self.run, (self.hook_point,)), self.hook_point)

    def _entry(self, path: Path) -> dict[str, Any]:
        name = path.relative_to(self.run.folder).as_posix()
        try:
            return self.run.manifest["files"][name]
        except KeyError as error:
            raise UsageError(f"{path} is no shard of harvest {self.run.id}: take it out of the folder") from error

    @property
    def name(self) -> str:
        """Tells it from any other."""
        return f"{self.run.id} {self.hook_point}"

    @property
    def is_stored(self) -> bool:
        """Whether vectors are on disk; otherwise the model computes them whenever they are read."""
        return self.run.config["harvest"]["keep_activations"] == "all"

    @property
    def d_in(self) -> int:
        """Width of a vector."""
        return self.run.results["hook_points"][self.hook_point]["d_in"]

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the hook points that lie side by side: here one."""
        return (self.d_in,)

    @property
    def hook_points(self) -> tuple[str, ...]:
        """Names of the hook points that lie side by side: here one."""
        return (self.hook_point,)

    @property
    def sink_norm(self) -> float:
        """Tokens with a larger norm are classed as sinks."""
        return self.run.results["hook_points"][self.hook_point]["sink_norm"]

    @cached_property
    def heldout_docs(self) -> np.ndarray:
        """`[n_docs]` bool: held out of training."""
        return heldout_documents(self.run.folder)

    @cached_property
    def _groups(self) -> dict[Group, Moments]:
        return read_statistics(self.run.folder / layout.STATISTICS)

    def moments(self, split: str = "train", classes: Sequence[str] = ("normal",)) -> Moments:
        """Count, mean and spread, first positions included where sinks are; of all rows, or of the first window where
        no vector is stored (`statistics_of` in the run's results says which)."""
        _check_classes(classes)
        return chosen(self._groups, self.hook_point, split, classes)

    def rows(
        self,
        split: str = "train",
        classes: Sequence[str] = ("normal",),
        *,
        first: bool = False,
        documents: Sequence[int] | None = None,
    ) -> "RowSet":
        """The rows of a split and of some token classes.

        Args:
            split: `train`, `heldout` or `all`.
            classes: of `normal special role sink`.
            first: whether to take first positions too, where their class is asked for.
            documents: only rows of these documents, if given.
        """
        return RowSet(self, selection(self.heldout_docs, split, classes, first, documents))


class RowSet:
    """Rows chosen from the blocks of one hook point, or of several side by side."""

    def __init__(self, activations: Readable, selection: Selection) -> None:
        self.activations, self.selection = activations, selection
        self._surveyed: Survey | None = None

    def __len__(self) -> int:
        return int(self._survey().counts.sum())

    @property
    def n_sequences(self) -> int:
        """Sequences that have a chosen row."""
        return self._survey().n_sequences

    def _survey(self) -> "Survey":
        """Of stored rows once; of recomputed ones anew, since a window's sinks are known once it was computed."""
        if self._surveyed is None or not self.activations.is_stored:
            self._surveyed = survey(self.activations.blocks, self.selection)
        return self._surveyed

    def in_order(self, batch_size: int = CHUNK_ROWS) -> Iterator[Float[Tensor, "n d_in"]]:
        """Every row once, as stored, in float32; a batch never spans two blocks."""
        for block in self.activations.blocks:
            rows = block.open()
            for some in _chunks(self.selection.of(rows.columns), batch_size):
                yield rows.tensor(some, self.activations.dtype).float()

    def by_class(self, batch_size: int = CHUNK_ROWS) -> Iterator["Labelled"]:
        """Every row once, as stored; a batch spans neither two blocks, nor two token classes, nor both splits."""
        names = {number: name for name, number in TOKEN_CLASSES.items()}
        for block in self.activations.blocks:
            rows = block.open()
            chosen = self.selection.of(rows.columns)
            classes, documents = (rows.columns[name][chosen] for name in ("token_class", "doc_id"))
            kinds = 2 * classes.astype(np.int64) + self.selection.heldout[documents]
            for kind in np.unique(kinds):
                for some in _chunks(chosen[kinds == kind], batch_size):
                    x = rows.tensor(some, self.activations.dtype).float()
                    yield Labelled(x, names[int(kind) // 2], bool(kind % 2), rows.columns["doc_id"][some])

    def shuffled(self, batch_size: int, seed: int, *, prefetch: int = 2, state: ShuffleState | None = None) -> Shuffled:
        """Endless batches: every row exactly once an epoch, each epoch in a new order; a batch may span two epochs.

        Args:
            batch_size: rows of every batch.
            seed: of the order.
            prefetch: batches prepared in a thread while one is used; 0 prepares them when asked.
            state: to go on exactly where `Shuffled.state` was taken.

        Raises:
            UsageError: there are no rows.
        """
        if self.activations.is_stored and not len(self):
            raise UsageError("no rows match: choose other token classes, or harvest more text")
        return Shuffled(
            self.activations.blocks,
            self.selection.of,
            batch_size=batch_size,
            seed=seed,
            dtype=self.activations.dtype,
            n_sequences=self.n_sequences,
            of=f"{self.activations.name} {self.selection.name}",
            prefetch=prefetch,
            state=state,
        )


class Labelled(NamedTuple):
    """Rows of one token class and of one split."""

    x: Float[Tensor, "n d_in"]
    token_class: str
    heldout: bool
    doc_id: np.ndarray
    """`[n]` the document of each."""


def selection(
    heldout: np.ndarray, split: str, classes: Sequence[str], first: bool, documents: Sequence[int] | None
) -> Selection:
    """What `Activations.rows` asks for; `heldout` is `[n_docs]` bool.

    Raises:
        UsageError: an unknown token class.
    """
    _check_classes(classes)
    wanted = frozenset(documents) if documents is not None else None
    return Selection(split, tuple(classes), first, wanted, heldout)


def recomputed(recomputer: Recomputer, hook_point: str) -> list[RecomputedBlock]:
    """All windows at one of the hook points that `recomputer` computes."""
    return [RecomputedBlock(recomputer, number, hook_point) for number in range(recomputer.n_windows)]


class Survey(NamedTuple):
    """What is chosen, before any of it is read."""

    counts: np.ndarray
    """`[n_blocks]` rows."""
    n_sequences: int


def survey(blocks: Sequence[Block], selection: Selection) -> Survey:
    """Count the chosen rows and their sequences. Where vectors are computed again and were not yet, a sink counts with
    its token's class."""
    counts, found = [], [np.empty(0, np.int32)]
    for block in blocks:
        columns = block.columns()
        wanted = selection.of(columns)
        counts.append(len(wanted))
        found.append(np.unique(columns["seq"][wanted]))
    return Survey(np.array(counts, np.int64), len(np.unique(np.concatenate(found))))


def _check_classes(classes: Sequence[str]) -> None:
    unknown = set(classes) - set(TOKEN_CLASSES)
    if unknown:
        raise UsageError(f"token class {', '.join(sorted(unknown))} is not known: choose of {', '.join(TOKEN_CLASSES)}")


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
