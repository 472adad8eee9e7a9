"""Triton kernels for the sparse products over CSR groups: group g holds the entries offsets[g] : offsets[g + 1].

Every output element is summed by one program in one order: no atomics, and reruns agree bit for bit. Sums are taken in
float32, or in float64 for float64 inputs. The only module that imports triton; without triton it still imports.
"""

import importlib
import os
import subprocess
from collections.abc import Callable
from typing import Any, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor


def _optional(name: str) -> Any:
    """The module, or None where it is not installed: triton has wheels for some platforms only."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


triton: Any = _optional("triton")
tl: Any = _optional("triton.language")
constexpr: Any = tl.constexpr if tl else int
_jit: Callable[[Any], Any] = triton.jit if triton else lambda kernel: kernel

_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"  # triton.jit reads it when a kernel is defined
_ROW_BYTES = 512
"""Bytes of a row that a tile takes: one 16-byte load for each of a warp's 32 threads."""
_TILE = 4096
"""Most elements of a tile, summed in 32 float32 registers of each thread (four warps a program)."""
_MIN_COLUMNS = 16
"""Fewest columns of a tile: narrower ones gain nothing."""
_SHORT = 8
"""Groups of at most so many entries take one small tile: most latents fire in few rows of a batch."""
_LONG = 32
"""Most entries that a tile of a longer group takes at once."""

FAILURES: tuple[type[Exception], ...] = (RuntimeError, OSError, subprocess.SubprocessError)
"""What a kernel raises where triton is installed but cannot build or launch it: no C compiler, no headers, no room."""
if triton:
    FAILURES = (*FAILURES, triton.TritonError)


def available() -> bool:
    """Whether the kernels can run here: triton is installed and there is a CUDA device, or its interpreter is on."""
    return triton is not None and (_INTERPRETED or torch.cuda.is_available())


# no_type_check: a kernel's source is compiled and never called, so run-time type checkers must not wrap it.
@_jit
@no_type_check
def _add_entries(total, first, end, values, indices, table, stride, cols, d, ENTRIES: constexpr):
    """total [entries, cols] + values[:, None] · table[indices, cols], for entries first : min(first + ENTRIES, end)."""
    entries = first + tl.arange(0, ENTRIES)
    kept = entries < end
    rows = tl.load(indices + entries, mask=kept, other=0)
    weights = tl.load(values + entries, mask=kept, other=0.0)
    mask = kept[:, None] & (cols < d)[None, :]
    tile = tl.load(table + rows[:, None] * stride + cols[None, :], mask=mask, other=0.0)
    return total + weights.to(total.dtype)[:, None] * tile.to(total.dtype)


@_jit
@no_type_check
def _gather_sum_kernel(
    out,
    values,
    table,
    indices,
    offsets,
    stride,
    d,
    SUM: constexpr,
    COLS: constexpr,
    SHORT: constexpr,
    LONG: constexpr,
):
    """One program: COLS elements of one row of out [groups, d]."""
    group = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    start = tl.load(offsets + group)
    end = tl.load(offsets + group + 1)
    if end - start <= SHORT:
        few = tl.zeros([SHORT, COLS], SUM)
        row = tl.sum(_add_entries(few, start, end, values, indices, table, stride, cols, d, SHORT), axis=0)
    else:
        many = tl.zeros([LONG, COLS], SUM)
        for first in range(start, end, LONG):
            many = _add_entries(many, first, end, values, indices, table, stride, cols, d, LONG)
        row = tl.sum(many, axis=0)
    tl.store(out + group * d + cols, row.to(out.dtype.element_ty), mask=cols < d)


@_jit
@no_type_check
def _gather_dot_kernel(
    out,
    grad,
    table,
    indices,
    offsets,
    grad_stride,
    stride,
    d,
    SUM: constexpr,
    COLS: constexpr,
    ENTRIES: constexpr,
):
    """One program: the entries of one group, ENTRIES at a time."""
    group = tl.program_id(0).to(tl.int64)
    end = tl.load(offsets + group + 1)
    for first in range(tl.load(offsets + group), end, ENTRIES):
        entries = first + tl.arange(0, ENTRIES)
        kept = entries < end
        rows = tl.load(indices + entries, mask=kept, other=0)
        total = tl.zeros([ENTRIES, COLS], SUM)
        for block in range(0, d, COLS):
            cols = block + tl.arange(0, COLS)
            right = tl.load(grad + group * grad_stride + cols, mask=cols < d, other=0.0).to(SUM)
            mask = kept[:, None] & (cols < d)[None, :]
            tile = tl.load(table + rows[:, None] * stride + cols[None, :], mask=mask, other=0.0)
            total += tile.to(SUM) * right[None, :]
        tl.store(out + entries, tl.sum(total, axis=1).to(out.dtype.element_ty), mask=kept)


def _rows(table: Tensor) -> Tensor:
    """The same matrix with unit stride along a row; copied only where it has another."""
    return table if table.stride(1) == 1 else table.contiguous()


def _columns(table: Tensor, d: int) -> int:
    """Columns of a tile: a power of two that covers d, or as many as fit _ROW_BYTES."""
    return min(max(triton.next_power_of_2(d), _MIN_COLUMNS), _ROW_BYTES // table.element_size())


def _arithmetic(dtype: torch.dtype) -> dict[str, Any]:
    """Launch options: the type of sums, and fused multiply-adds, whose default differs between versions of triton."""
    return {"SUM": tl.float64 if dtype == torch.float64 else tl.float32, "enable_fp_fusion": True}


def gather_sum(
    values: Float[Tensor, " nnz"],
    W: Float[Tensor, "n d"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " groups_plus_1"],
) -> Float[Tensor, "groups d"]:
    """out[g] = Σ_{e in group g} values[e] · W[indices[e]], in the dtype of W. Not differentiable."""
    groups, d, W = len(offsets) - 1, W.shape[1], _rows(W)
    cols, out = _columns(W, d), W.new_empty(groups, d)
    with torch.cuda.device_of(W):
        _gather_sum_kernel[groups, triton.cdiv(d, cols)](
            out,
            values.contiguous(),
            W,
            indices.contiguous(),
            offsets.contiguous(),
            W.stride(0),
            d,
            COLS=cols,
            SHORT=_SHORT,
            LONG=min(_LONG, _TILE // cols),
            **_arithmetic(W.dtype),
        )
    return out


def gather_dot(
    G: Float[Tensor, "groups d"],
    W: Float[Tensor, "n d"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " groups_plus_1"],
) -> Float[Tensor, " nnz"]:
    """out[e] = W[indices[e]] · G[group of e], in the dtype of W. Not differentiable."""
    d, G, W = W.shape[1], _rows(G), _rows(W)
    cols, out = _columns(W, d), W.new_empty(len(indices))
    with torch.cuda.device_of(W):
        _gather_dot_kernel[(len(G),)](
            out,
            G,
            W,
            indices.contiguous(),
            offsets.contiguous(),
            G.stride(0),
            W.stride(0),
            d,
            COLS=cols,
            ENTRIES=min(_LONG, _TILE // cols),
            **_arithmetic(W.dtype),
        )
    return out
