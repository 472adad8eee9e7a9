"""What a forward pass reads: where text is, where sequences begin, and whether it goes on from a cache."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """The positions of one pass."""

    real: Bool[Tensor, "batch pos"]
    """False on padding."""
    first: Bool[Tensor, "batch pos"]
    """The first real position of each sequence, where this pass reads it. It is the attention sink."""
    continues: bool
    """Whether the sequences' earlier positions were read by the pass before."""

    @classmethod
    def of(cls, real: Bool[Tensor, "batch whole"], n_read: int, *, continues: bool = False) -> "Reading":
        """Of a pass over the last `n_read` positions of sequences that are `real` where they are no padding."""
        first = real & (real.cumsum(dim=1) == 1)
        return cls(real[:, -n_read:], first[:, -n_read:], continues)

    @classmethod
    def whole(cls, batch: int, pos: int, device: torch.device) -> "Reading":
        """Of a pass over sequences from their beginning on, without padding."""
        return cls.of(torch.ones(batch, pos, dtype=torch.bool, device=device), pos)

    def to(self, device: torch.device) -> "Reading":
        """The same on another device."""
        return Reading(self.real.to(device), self.first.to(device), self.continues)


def left_padded(ids: list[list[int]], fill: int = 0) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Sequences that end together, as they do when all are continued; and where they are real."""
    longest = max(map(len, ids))
    tokens = torch.tensor([[fill] * (longest - len(each)) + each for each in ids])
    real = torch.arange(longest) >= longest - torch.tensor([len(each) for each in ids])[:, None]
    return tokens, real


def right_padded(ids: list[list[int]], fill: int = 0) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Sequences that begin together, so that causal attention never sees the padding; and where they are real."""
    length = torch.tensor([len(each) for each in ids])
    tokens = torch.full((len(ids), int(length.max())), fill, dtype=torch.long)
    for row, each in zip(tokens, ids, strict=True):
        row[: len(each)] = torch.tensor(each)
    return tokens, torch.arange(tokens.shape[1]) < length[:, None]
