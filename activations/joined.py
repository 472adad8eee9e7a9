"""Several hook points side by side: row i of a batch is the same token at each of them.

Transcoders read one hook point and predict another; crosscoders read several layers, or several models, into one
dictionary. Members of one harvest are joined shard by shard, in the order in which each of them is read alone. Members
of several harvests are joined window by window, so that neither the seed that shuffled a window, nor the shards it was
cut into, nor whether its vectors were kept need be the same: only the tokens must.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activations.reader import Activations, Block, RecomputedBlock, RowSet, StoredBlock, recomputed, selection
from activations.recompute import Recomputer
from activations.same_tokens import check_same_tokens
from activations.shuffle import OpenRows
from activations.window import TORCH_DTYPES
from store import layout
from store.errors import UsageError

WHICH_TOKEN = ("seq", "pos", "token_id", "doc_id")
"""Columns in which rows of the same token agree, whatever the model and the hook point."""
Columns = dict[str, np.ndarray]


def split(x: Float[Tensor, "batch d_in"], widths: Sequence[int]) -> list[Float[Tensor, "batch _"]]:
    """Each member's part of a joined batch, as views."""
    return list(x.split(list(widths), dim=1))


class JoinedActivations:
    """Hook points of one harvest, or of harvests with the same tokens, read as one that is as wide as all of them."""

    def __init__(self, members: Sequence[Activations]) -> None:
        """Nothing is read yet but what tells that the members can be joined.

        Args:
            members: at least two, in the order in which their vectors are to lie side by side.

        Raises:
            UsageError: fewer than two, one of them twice, other tokens in one than in another, or a shard is missing.
        """
        _check_members(members)
        self.members = tuple(members)
        self.widths: tuple[int, ...] = tuple(member.d_in for member in members)
        self.blocks: Sequence[JoinedBlock] = _blocks(self.members)

    @property
    def name(self) -> str:
        """Tells it from any other."""
        return " + ".join(member.name for member in self.members)

    @property
    def hook_points(self) -> tuple[str, ...]:
        """The members' names, in their order."""
        return tuple(member.hook_point for member in self.members)

    @property
    def d_in(self) -> int:
        """Width of the members' vectors side by side."""
        return sum(self.widths)

    @property
    def dtype(self) -> str:
        """The members' dtype if it is one, else float32, which holds all of them exactly."""
        found = {member.dtype for member in self.members}
        return found.pop() if len(found) == 1 else "float32"

    @property
    def is_stored(self) -> bool:
        """Whether every member's vectors are on disk."""
        return all(member.is_stored for member in self.members)

    @cached_property
    def heldout_docs(self) -> np.ndarray:
        """`[n_docs]` bool: held out of training; the same for every member."""
        return self.members[0].heldout_docs

    def rows(
        self,
        split: str = "train",
        classes: Sequence[str] = ("normal",),
        *,
        first: bool = False,
        documents: Sequence[int] | None = None,
    ) -> RowSet:
        """The rows of a split whose token class is asked for at every member: sinks are told by their norm at each hook
        point, and a token that is one anywhere is left out unless sinks are asked for.

        Args:
            split: `train`, `heldout` or `all`.
            classes: of `normal special role sink`.
            first: whether to take first positions too, where their class is asked for.
            documents: only rows of these documents, if given.
        """
        return RowSet(self, selection(self.heldout_docs, split, classes, first, documents))


@dataclass(frozen=True)
class JoinedBlock:
    """The same rows at every member."""

    names: tuple[str, ...]
    """Of the members."""
    members: tuple[tuple[Block, ...], ...]
    """Of each member, the blocks that hold these rows."""
    dtypes: tuple[str, ...]
    """Of each member's stored vectors."""

    @property
    def n_rows(self) -> int:
        """How many."""
        return sum(block.n_rows for block in self.members[0])

    @property
    def window(self) -> int:
        """Which window they are of, at the first member."""
        return self.members[0][0].window

    def open(self) -> "JoinedRows":
        """Every member's vectors as they lie, memory maps among them: only rows that are asked for are put together.

        Raises:
            UsageError: the members do not hold the same tokens.
        """
        opened = [tuple(block.open() for block in blocks) for blocks in self.members]
        found = [_end_to_end([rows.columns for rows in parts]) for parts in opened]
        orders = self._orders(found)
        members = tuple(map(MemberRows, opened, self.dtypes, orders))
        return JoinedRows(members, _joined(found, orders))

    def columns(self) -> Columns:
        """The first member's columns, but `token_class` is `[n, n_members]`."""
        found = [_end_to_end([block.columns() for block in blocks]) for blocks in self.members]
        return _joined(found, self._orders(found))

    def _orders(self, found: Sequence[Columns]) -> list[np.ndarray | None]:
        """For each member: which of its rows are the first member's; None where they are, row by row."""
        orders = [_order(found[0], other) for other in found]
        for name, other, order in zip(self.names, found, orders, strict=True):
            if not _are_same(found[0], other, order):
                raise UsageError(
                    f"{name} has other tokens than {self.names[0]} where both should have sequence "
                    f"{found[0]['seq'].min()} and those after it: `monosem verify` names the files that are broken, "
                    "`monosem harvest --repair` mends them"
                )
        return orders


@dataclass(frozen=True)
class MemberRows:
    """One member's part of a joined block."""

    parts: tuple[OpenRows, ...]
    dtype: str
    """Of the stored vectors."""
    order: np.ndarray | None
    """`[n]` for each joined row, which of the member's; None where it is the same number."""

    def tensor(self, rows: np.ndarray) -> Tensor:
        """`[len(rows), width]`: the vectors of some joined rows, as stored."""
        rows = rows if self.order is None else self.order[rows]
        if len(self.parts) == 1:
            return self.parts[0].tensor(rows, self.dtype)
        ends = np.cumsum([len(part.columns["seq"]) for part in self.parts])
        which = np.searchsorted(ends, rows, side="right")
        places = [np.flatnonzero(which == number) for number in range(len(self.parts))]
        starts = [0, *ends[:-1]]
        taken = [
            part.tensor(rows[place] - start, self.dtype)
            for part, place, start in zip(self.parts, places, starts, strict=True)
        ]
        back = np.argsort(np.concatenate(places))
        return torch.cat(taken).index_select(0, torch.from_numpy(back))


@dataclass(frozen=True)
class JoinedRows:
    """A joined block, opened."""

    members: tuple[MemberRows, ...]
    columns: Columns
    """`[n]` for each of `token_id doc_id seq pos`; `token_class` is `[n, n_members]`."""

    def __len__(self) -> int:
        return len(self.columns["seq"])

    def tensor(self, rows: np.ndarray, dtype: str) -> Tensor:
        """`[len(rows), d_in]`: the vectors of some rows, the members' side by side, decoded to `dtype`."""
        return torch.cat([member.tensor(rows).to(TORCH_DTYPES[dtype]) for member in self.members], dim=1)


def _check_members(members: Sequence[Activations]) -> None:
    if len(members) < 2:
        raise UsageError(f"{len(members)} hook point cannot be joined: give at least 2, or read it with Activations")
    names = [member.name for member in members]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"{', '.join(sorted(twice))} is there twice: name each hook point of a harvest once")
    for other in {member.run.id: member.run for member in members}.values():
        check_same_tokens(members[0].run, other)
    for member in members:
        _check_shards(member)


def _check_shards(member: Activations) -> None:
    """Every shard that the manifest names is there: where one was deleted, the other members' rows have no partner."""
    for name in member.run.manifest["files"]:
        found = layout.SHARD_NAME.match(name)
        if found and found["hook_point"] == member.hook_point and not (member.run.folder / name).exists():
            raise UsageError(
                f"{member.run.folder / name} is missing: mend the harvest with `monosem harvest --repair "
                f"{member.run.id}`"
            )


def _blocks(members: Sequence[Activations]) -> list[JoinedBlock]:
    names, dtypes = tuple(m.name for m in members), tuple(m.dtype for m in members)
    blocks = _member_blocks(members)
    if len({member.run.id for member in members}) == 1:
        return [JoinedBlock(names, tuple((block,) for block in same), dtypes) for same in zip(*blocks, strict=True)]
    windows = [[tuple(same) for _, same in groupby(own, lambda block: block.window)] for own in blocks]
    return [JoinedBlock(names, same, dtypes) for same in zip(*windows, strict=True)]


def _member_blocks(members: Sequence[Activations]) -> list[Sequence[StoredBlock] | Sequence[RecomputedBlock]]:
    """Every member's own blocks; those of a harvest that kept no vector come from one pass for all its members."""
    hook_points: dict[str, list[str]] = {}
    for member in members:
        hook_points.setdefault(member.run.id, []).append(member.hook_point)
    shared = {member.run.id: Recomputer(member.run, hook_points[member.run.id]) for member in members}
    return [
        member.blocks if member.is_stored else recomputed(shared[member.run.id], member.hook_point)
        for member in members
    ]


def _end_to_end(columns: Sequence[Columns]) -> Columns:
    if len(columns) == 1:
        return columns[0]
    return {name: np.concatenate([some[name] for some in columns]) for name in columns[0]}


def _joined(found: Sequence[Columns], orders: Sequence[np.ndarray | None]) -> Columns:
    classes = [
        columns["token_class"] if order is None else columns["token_class"][order]
        for columns, order in zip(found, orders, strict=True)
    ]
    return {**found[0], "token_class": np.stack(classes, axis=1)}


def _order(wanted: Columns, found: Columns) -> np.ndarray | None:
    """`[n]`: where `found` has the rows of `wanted`, by sequence and position; None where it has them in that order."""
    if len(wanted["seq"]) != len(found["seq"]) or _are_same(wanted, found, None):
        return None
    order = np.empty(len(wanted["seq"]), np.int64)
    order[np.lexsort((wanted["pos"], wanted["seq"]))] = np.lexsort((found["pos"], found["seq"]))
    return order


def _are_same(wanted: Columns, found: Columns, order: np.ndarray | None) -> bool:
    return all(
        np.array_equal(wanted[name], found[name] if order is None else found[name][order]) for name in WHICH_TOKEN
    )
