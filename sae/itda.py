"""ITDA: a dictionary of real activations, x ≈ b_dec + Σ_j a_j · W_dec[j] with a by matching pursuit, signed.

Nothing is trained: an atom is the direction of one token's activation, and says which token that was. Leask, Nanda &
Al Moubayed 2025, "Inference-time decomposition of activations", arXiv:2505.17769. Their text says OMP in one place; the
algorithm is plain matching pursuit, as here. `sae.itda_build` chooses the atoms, `sae.itda_overlap` compares by them.
"""

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.base import SAE, SAEConfig
from sae.pursuit import Code, mp
from sae.sparse import Pattern, SparseLatents

NOT_BUILT = -1
"""Where an atom is said to be from as long as it has not been filled in."""


@dataclass(frozen=True, kw_only=True)
class ITDAConfig(SAEConfig):
    """A finished ITDA: `d_sae` is how many atoms were found. To build one see `itda_build.BuildConfig`."""

    k: int = 40
    """Steps of matching pursuit a row, and so most atoms it has."""
    target_cos: float = 0.9
    """Rows whose cosine with their reconstruction was below this became atoms."""
    tau: float | None = None
    """The same bound on mean squares of normalised rows, as the paper's code has it; None means `tau_of` gives it."""
    centre: bool = False
    """Whether a fixed mean, `b_dec`, is subtracted first: not the paper's method."""
    n_tokens: int = 0
    """Rows that could have become atoms: what chance overlap is reckoned from."""
    stream: str = ""
    """Hash of sequence, position and token of every row shown, in order: only dictionaries that share it compare."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"k={self.k} keeps nothing: choose k >= 1")
        check_cosine("target_cos", self.target_cos)
        tau = tau_of(self.target_cos, self.d_in)
        if self.tau is not None and abs(self.tau - tau) > 1e-9 * tau:
            raise ValueError(f"tau={self.tau} is not target_cos={self.target_cos} at d_in={self.d_in}: leave tau out")
        object.__setattr__(self, "tau", tau)


def tau_of(target_cos: float, d_in: int) -> float:
    """(2 − 2·target_cos) / d_in: the mean over dimensions of (x/‖x‖ − x_hat/‖x_hat‖)² at that cosine."""
    return (2 - 2 * target_cos) / d_in


def check_cosine(name: str, value: float) -> None:
    """Raise a ValueError unless 0 < value < 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name}={value} is not a cosine that rows can reach or miss: choose 0 < {name} < 1")


class Provenance(NamedTuple):
    """Which token each of some rows belongs to; int64, and never its length by `len`."""

    seq: Int[Tensor, " n"]
    """Sequence."""
    pos: Int[Tensor, " n"]
    """Position in the sequence."""
    doc_id: Int[Tensor, " n"]
    """Document."""
    token_id: Int[Tensor, " n"]
    """Vocabulary entry."""

    def take(self, rows: Int[Tensor, " m"] | Bool[Tensor, " n"]) -> "Provenance":
        """Those of some rows."""
        return Provenance(*(column[rows.to(column.device)] for column in self))

    def followed_by(self, other: "Provenance") -> "Provenance":
        """These and then the others."""
        return Provenance(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


@final
class ITDA(SAE[ITDAConfig]):
    """Matching pursuit over atoms that are activations, each of which knows its token."""

    config_cls = ITDAConfig
    atom_seq: Int[Tensor, " d_sae"]
    atom_pos: Int[Tensor, " d_sae"]
    atom_doc: Int[Tensor, " d_sae"]
    atom_token: Int[Tensor, " d_sae"]

    def __init__(self, cfg: ITDAConfig) -> None:
        super().__init__(cfg)
        for name in ("atom_seq", "atom_pos", "atom_doc", "atom_token"):
            self.register_buffer(name, torch.full((cfg.d_sae,), NOT_BUILT, dtype=torch.int64))
        self.requires_grad_(False)

    @classmethod
    def from_atoms(
        cls,
        cfg: ITDAConfig,
        atoms: Float[Tensor, "d_sae d_in"],
        places: Provenance,
        mean: Float[Tensor, " d_in"] | None = None,
    ) -> "ITDA":
        """The dictionary of these unit rows, found at these places after `mean` was subtracted."""
        itda = cls(cfg).to(device=atoms.device, dtype=atoms.dtype)
        itda.W_dec.copy_(atoms)
        if mean is not None:
            itda.b_dec.copy_(mean)
        for buffer, column in zip((itda.atom_seq, itda.atom_pos, itda.atom_doc, itda.atom_token), places, strict=True):
            buffer.copy_(column)
        return itda

    @property
    def places(self) -> Provenance:
        """Which token each atom is from."""
        return Provenance(self.atom_seq, self.atom_pos, self.atom_doc, self.atom_token)

    def pursue(self, x: Float[Tensor, "batch {self.cfg.d_in}"]) -> Code:
        """The atoms of each row and their signed coefficients."""
        return mp(x - self.b_dec, self.W_dec, self.cfg.k)

    def encode(self, x: Float[Tensor, "batch {self.cfg.d_in}"]) -> SparseLatents:
        """`pursue`, as every variant returns it; unlike theirs, values may be negative. No gradient flows through."""
        return _latents(self.pursue(x), self.cfg.d_sae)


def _latents(code: Code, d_sae: int) -> SparseLatents:
    """The code as the other variants' latents, without what fills up its rows."""
    row, slot = code.values.nonzero(as_tuple=True)
    offsets = torch.searchsorted(row, torch.arange(len(code.values) + 1, device=row.device))
    return SparseLatents(code.values[row, slot], Pattern(code.indices[row, slot], offsets, d_sae))


class Decomposition(NamedTuple):
    """One entry for every atom that a row uses: rows in order, within a row the largest |coefficient| first."""

    row: Int[Tensor, " n"]
    """Which row of x."""
    atom: Int[Tensor, " n"]
    """Which atom."""
    coefficient: Float[Tensor, " n"]
    """How much of it, signed, in units of x."""
    places: Provenance
    """The tokens whose activations the atoms are."""


def decompose(itda: ITDA, x: Float[Tensor, "batch d_in"]) -> Decomposition:
    """Each row as a sum of other tokens' directions: which ones, how much, and where those tokens stand."""
    code = itda.pursue(x)
    order = code.values.abs().argsort(dim=1, descending=True, stable=True)
    values, indices = code.values.gather(1, order), code.indices.gather(1, order)
    row, slot = values.nonzero(as_tuple=True)
    atom = indices[row, slot]
    return Decomposition(row, atom, values[row, slot], itda.places.take(atom))
