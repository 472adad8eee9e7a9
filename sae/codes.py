"""Integer codes: what a row is, as whole numbers, and how many bits it takes to say so."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.sparse import SparseLatents

NULL = -1
"""The code of nothing: no latent is active."""


class Coded(ABC):
    """An SAE whose latents can be written as integers."""

    @property
    @abstractmethod
    def n_codes(self) -> int:
        """Codes there are, 0..n_codes − 1."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "batch d_in"]) -> SparseLatents:
        """The kept latents of each row."""

    @abstractmethod
    def codes_of(self, latents: SparseLatents) -> Int[Tensor, "batch n"]:
        """The codes of each row of latents, filled up with NULL."""

    @torch.no_grad()
    def codes(self, x: Float[Tensor, "batch d_in"]) -> Int[Tensor, "batch n"]:
        """The codes of each row, filled up with NULL."""
        return self.codes_of(self.encode(x))

    @abstractmethod
    def bits_per_row(self, counts: Int[Tensor, " n_codes"], n_rows: int) -> Float[Tensor, ""]:
        """Bits that a row takes on average, each code with the length that suits its frequency; `counts` says how
        often each code occurs in `n_rows` rows."""


def entropy_bits(p: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """−p log2 p, in float64, 0 at p = 0."""
    p = p.double()
    return -torch.special.xlogy(p, p) / math.log(2.0)


def count_codes(codes: Int[Tensor, "*shape"], n_codes: int) -> Int[Tensor, " n_codes"]:
    """How often each code occurs; NULL does not count. Waits for nothing."""
    places = codes.flatten() - NULL
    counts = torch.zeros(n_codes - NULL, dtype=torch.int64, device=codes.device)
    return counts.index_add_(0, places, torch.ones_like(places))[-NULL:]
