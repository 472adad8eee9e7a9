"""Matching pursuit and its orthogonal form: x ≈ Σ_j values[:, j] · atoms[indices[:, j]], signed, k at most.

    repeat k times:  i = argmax |⟨r, atom_i⟩|   MP: r ← r − ⟨r, atom_i⟩ atom_i   OMP: r ← x − projection on all chosen

Mallat & Zhang 1993, "Matching pursuits with time-frequency dictionaries"; Pati et al. 1993 and Tropp 2004, "Greed is
good", for OMP. Rows are worked on in blocks, so that memory does not grow with their number. No gradient flows through.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK_VALUES = 2**20
"""Values held for one block of rows, a few MB: blocks of 64 to 512 rows took the same time (1024 and 4608 atoms)."""
GRAM_VALUES = 2**27
"""The largest Gram matrix that is made, half a GB in float32."""
CHUNK = 64
"""Values among which a first maximum is taken: two small searches take half the time of one argmax over a row."""
NOISE = 16
"""What is smaller than this many rounding errors of ‖x‖ is not chosen: it would fit the rounding."""
UNIT_TOLERANCE = 1e-4
"""How far an atom's norm may be from 1 in float32; in coarser dtypes a few rounding errors."""


class Code(NamedTuple):
    """The chosen atoms of each row, in the order of their first choice, and then padding with value 0."""

    values: Float[Tensor, "batch width"]
    """Signed coefficients in units of x, `width` = min(k, n_atoms); NaN in a row of x that is not finite."""
    indices: Int[Tensor, "batch width"]
    """Which atom each value belongs to; distinct within a row, the padding's included."""

    def decode(self, atoms: Float[Tensor, "n_atoms d_in"]) -> Float[Tensor, "batch d_in"]:
        """Σ_j values[:, j] · atoms[indices[:, j]]."""
        return F.embedding_bag(self.indices, atoms, per_sample_weights=self.values, mode="sum")


@torch.no_grad()
def mp(
    x: Float[Tensor, "batch d_in"],
    atoms: Float[Tensor, "n_atoms d_in"],
    k: int,
    gram: Float[Tensor, "n_atoms n_atoms"] | None = None,
) -> Code:
    """k steps of matching pursuit. An atom may be chosen again; its coefficients are added up, so L0 ≤ k.

    Args:
        x: the rows.
        atoms: rows of norm 1.
        k: steps.
        gram: `atoms @ atoms.T` where the caller has it; made here where it pays.

    Raises:
        ValueError: no atoms, k < 1, widths that differ, or atoms that are not of norm 1.
    """
    _check(x, atoms, k)
    if gram is None and _gram_pays(len(x), len(atoms), k):
        gram = atoms @ atoms.t()
    blocks = x.split(max(1, BLOCK_VALUES // (len(atoms) + k * k)))
    return _joined([_padded(_mp_block(block, atoms, k, gram), len(atoms)) for block in blocks], x)


@torch.no_grad()
def omp(x: Float[Tensor, "batch d_in"], atoms: Float[Tensor, "n_atoms d_in"], k: int) -> Code:
    """k steps of orthogonal matching pursuit: after every step the coefficients are those of least squares.

    Finds the k atoms that a row was made of, and their coefficients, where the coherence μ = max |⟨atom_i, atom_j⟩| of
    the atoms is below 1/(2k − 1): Tropp 2004. An atom that the ones before it span adds nothing and gets coefficient 0,
    so that singular systems do not arise.

    Raises:
        ValueError: as `mp`.
    """
    _check(x, atoms, k)
    width = min(k, len(atoms))
    blocks = x.split(max(1, BLOCK_VALUES // (len(atoms) + width * (width + x.shape[1]))))
    return _joined([_omp_block(block, atoms, width) for block in blocks], x)


def _check(x: Tensor, atoms: Tensor, k: int) -> None:
    if k < 1:
        raise ValueError(f"k={k} chooses nothing: choose k >= 1")
    if len(atoms) == 0:
        raise ValueError("there are no atoms to choose from: pass at least one")
    if x.ndim != 2 or x.shape[1] != atoms.shape[1]:
        raise ValueError(f"x has shape {tuple(x.shape)}, atoms {tuple(atoms.shape)}: pass [rows, {atoms.shape[1]}]")
    norms = torch.linalg.vector_norm(atoms, dim=1, dtype=torch.promote_types(atoms.dtype, torch.float32))
    off = (norms - 1).abs()
    # not `>`: a NaN must fail as well
    if not off.max() <= max(UNIT_TOLERANCE, 4 * torch.finfo(atoms.dtype).eps):
        worst = int(off.argmax())
        raise ValueError(f"atom {worst} has norm {norms[worst].item():.6g}: scale atoms to norm 1")


def _gram_pays(n_rows: int, n_atoms: int, k: int) -> bool:
    """Whether n_atoms products of an atom with all others cost less than one such product a row and step.

    With the Gram matrix 512 rows and k=40 took 0.15 s in place of 0.83 s over 4608 atoms of width 576, and 0.035 s in
    place of 0.20 s over 1024; the matrix itself 0.19 s and 0.009 s (one thread of a two-core Xeon).
    """
    return n_rows * k > n_atoms and n_atoms**2 <= GRAM_VALUES


def _mp_block(x: Tensor, atoms: Tensor, k: int, gram: Tensor | None) -> Code:
    """All k choices in order, repeated ones and zeros among them."""
    residual, correlations = x, x @ atoms.t()
    size = torch.empty_like(correlations)
    noise = _noise(x)
    values, indices = x.new_empty(len(x), k), torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    for step in range(k):
        atom = _largest(torch.abs(correlations, out=size))
        value = correlations.gather(1, atom.unsqueeze(1))
        value.masked_fill_(value.abs() <= noise, 0)
        if gram is None:
            residual = residual.addcmul(atoms[atom], value, value=-1)
            torch.mm(residual, atoms.t(), out=correlations)
        else:
            # ⟨r − c·a, ·⟩ = ⟨r, ·⟩ − c ⟨a, ·⟩
            correlations.addcmul_(torch.index_select(gram, 0, atom, out=size), value, value=-1)
        values[:, step], indices[:, step] = value.squeeze(1), atom
    return Code(values, indices)


def _padded(chosen: Code, n_atoms: int) -> Code:
    """The same sum with every atom once: later choices added to the first, the rest padded with atoms not chosen."""
    values, indices = chosen
    same = indices.unsqueeze(2) == indices.unsqueeze(1)
    repeated = same.tril(-1).any(dim=2)
    summed = (same * values.unsqueeze(1)).sum(dim=2).masked_fill_(repeated, 0)
    width = min(values.shape[1], n_atoms)
    order = repeated.to(torch.int8).argsort(dim=1, stable=True)[:, :width]
    filled, padding = indices.gather(1, order), repeated.gather(1, order)
    return Code(summed.gather(1, order), torch.where(padding, _unused(filled, padding), filled))


def _unused(indices: Int[Tensor, "batch width"], padding: Bool[Tensor, "batch width"]) -> Int[Tensor, "batch width"]:
    """For each place of `padding` an atom that its row does not use: of the first `width` atoms enough are unused."""
    width = indices.shape[1]
    # places that do not matter are written to a column that is dropped
    low = indices.masked_fill(padding, width).clamp_max(width)
    used = torch.zeros(len(indices), width + 1, dtype=torch.int8, device=indices.device).scatter_(1, low, 1)[:, :width]
    rank = padding.cumsum(dim=1).sub_(1).clamp_min_(0)
    return used.argsort(dim=1, stable=True).gather(1, rank)


def _omp_block(x: Tensor, atoms: Tensor, width: int) -> Code:
    """OMP as Gram–Schmidt: chosen atoms = `triangle`ᵀ · `basis`, so that no Gram matrix's condition is squared."""
    rows, d_in = x.shape
    basis, residual, noise = x.new_zeros(rows, width, d_in), x.clone(), _noise(x)
    triangle = torch.eye(width, dtype=x.dtype, device=x.device).repeat(rows, 1, 1)
    indices = torch.empty(rows, width, dtype=torch.int64, device=x.device)
    for step in range(width):
        size = (residual @ atoms.t()).abs_().scatter_(1, indices[:, :step], -1.0)
        atom = _largest(size)
        overlap, rest = _orthogonal(atoms[atom], basis[:, :step])
        length = torch.linalg.vector_norm(rest, dim=1, keepdim=True)
        # spanned by those chosen before, or nothing but rounding left to explain
        adds = (length > torch.finfo(x.dtype).eps ** 0.5) & (size.gather(1, atom.unsqueeze(1)) > noise)
        direction = torch.where(adds, rest / length, 0)
        residual -= torch.linalg.vecdot(direction, residual).unsqueeze(1) * direction
        basis[:, step], indices[:, step] = direction, atom
        triangle[:, :step, step] = torch.where(adds, overlap, 0)
        triangle[:, step, step] = torch.where(adds, length, 1).squeeze(1)
    along = torch.bmm(basis, x.unsqueeze(2))
    return Code(torch.linalg.solve_triangular(triangle, along, upper=True).squeeze(2), indices)


def _orthogonal(atom: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of `atom` [rows, d_in] in the orthonormal `basis` [rows, step, d_in], and what they leave of it."""
    overlap = basis.new_zeros(basis.shape[:2])
    for _ in range(2):  # "twice is enough": Giraud et al. 2005
        part = torch.bmm(basis, atom.unsqueeze(2))
        atom = atom - torch.bmm(part.transpose(1, 2), basis).squeeze(1)
        overlap = overlap + part.squeeze(2)
    return overlap, atom


def _largest(size: Float[Tensor, "rows n"]) -> Int[Tensor, " rows"]:
    """Where each row's maximum is, the first one of equals."""
    n = size.shape[1]
    if n <= 2 * CHUNK:
        return size.argmax(dim=1)
    whole = n - n % CHUNK
    peaks = size[:, :whole].unflatten(1, (-1, CHUNK)).amax(dim=2)
    if whole < n:
        peaks = torch.cat([peaks, size[:, whole:].amax(dim=1, keepdim=True)], dim=1)
    start = peaks.argmax(dim=1, keepdim=True).mul_(CHUNK).clamp_max_(n - CHUNK)
    window = size.gather(1, start + torch.arange(CHUNK, device=size.device))
    return start.squeeze(1) + window.argmax(dim=1)


def _noise(x: Tensor) -> Float[Tensor, "rows 1"]:
    """The size of correlation below which a row's residual is rounding."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True) * (NOISE * torch.finfo(x.dtype).eps)


def _joined(blocks: list[Code], x: Tensor) -> Code:
    """The blocks' codes as one, with NaN where a row is not finite."""
    values, indices = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return Code(values.masked_fill_(~x.isfinite().all(dim=1, keepdim=True), torch.nan), indices)
