"""Activations of several dictionaries' hook points, row i being the same token wherever the harvests have the same."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from activations.joined import JoinedActivations, split
from activations.reader import Activations, RowSet
from activations.same_tokens import check_same_tokens
from activations.window import TORCH_DTYPES
from app.evaluation.subject import Subject
from store.errors import UsageError

BATCH_ROWS = 512


class Side(NamedTuple):
    """What one hook point has for the tokens of its group."""

    group: int
    """Rows of the same group are the same tokens."""
    x: Tensor
    """`[n, d_in]` held-out rows, as stored."""
    fitted: Tensor
    """`[n_fitted, d_in]` training rows, for what has to be fitted."""


def read_sides(subjects: Sequence[Subject], classes: Sequence[str], n_rows: int, seed: int) -> dict[str, Side]:
    """Rows of every hook point that can be paired with another one, by the name of its activations.

    A hook point whose tokens no other one has is left out; `why_unpaired` says why.
    """
    members = list({subject.activations.name: subject.activations for subject in subjects}.values())
    number = {member.name: _group(members, member) for member in members}
    sides: dict[str, Side] = {}
    for group, found in groupby(sorted(members, key=lambda m: number[m.name]), key=lambda m: number[m.name]):
        together = list(found)
        if len(together) > 1:
            sides |= _read(together, group, classes, n_rows, seed)
    return sides


def why_unpaired(a: Activations, b: Activations) -> str | None:
    """Why the rows of two hook points are not compared; None where they are."""
    if a.name == b.name:
        return f"both read {a.hook_point} of harvest {a.run.id}: their activations are the same"
    return why_other_tokens(a, b)


def why_other_tokens(a: Activations, b: Activations) -> str | None:
    """What differs where two harvests are not of the same tokens; None where they are."""
    try:
        check_same_tokens(a.run, b.run)
    except UsageError as error:
        return str(error)
    return None


def _group(members: Sequence[Activations], member: Activations) -> int:
    """The number of the first one with the same tokens."""
    return next(number for number, other in enumerate(members) if why_other_tokens(other, member) is None)


def _read(
    members: Sequence[Activations], group: int, classes: Sequence[str], n_rows: int, seed: int
) -> dict[str, Side]:
    joined = JoinedActivations(members)
    dtype, widths = TORCH_DTYPES[joined.dtype], joined.widths
    x, fitted = (
        split(_sample(joined.rows(name, classes), n_rows, seed).to(dtype), widths) for name in ("heldout", "train")
    )
    names = (member.name for member in members)
    return {name: Side(group, *some) for name, *some in zip(names, x, fitted, strict=True)}


def _sample(rows: RowSet, n_rows: int, seed: int) -> Tensor:
    """At most `n_rows` of the rows, drawn from all over the text."""
    # where vectors are computed anew a few sinks are only told then, and a sample of all rows may have some rows twice
    n_left, parts = min(n_rows, len(rows)), []
    stream = rows.shuffled(BATCH_ROWS, seed, prefetch=0)
    while n_left > 0:
        parts.append(next(stream)[:n_left])
        n_left -= len(parts[-1])
    return torch.cat(parts)
