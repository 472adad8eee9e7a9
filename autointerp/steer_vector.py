"""Vectors of one's own for steering, from safetensors files: nothing in them is run, and none is large."""

from math import isfinite

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from store.errors import UsageError

MAX_BYTES = 1_000_000
"""Of a file: above any vector's, below what would stall a server."""


def read_vector(data: bytes, d_in: int, tensor: str = "") -> tuple[float, ...]:
    """The vector in a safetensors file.

    Args:
        data: the file's bytes.
        d_in: how many numbers it must have.
        tensor: its name in the file; may be left out where there is one only.

    Raises:
        UsageError: the file is too large, damaged or none, or what is in it is not one finite vector of that length
            that points somewhere.
    """
    if len(data) > MAX_BYTES:
        raise UsageError(f"the file has {len(data):,} bytes: give one vector, in at most {MAX_BYTES:,}")
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise UsageError(f"the file is no safetensors ({error}): write it with safetensors.torch.save_file") from error
    if not tensor and len(tensors) != 1:
        raise UsageError(f"the file has {len(tensors)} tensors, {_some(tensors)}: give a file with one")
    if tensor and tensor not in tensors:
        raise UsageError(f"the file has no tensor '{tensor}', there is {_some(tensors)}: choose one of them")
    found = tensors[tensor or next(iter(tensors))]
    if found.numel() != d_in or max(found.shape, default=0) != d_in:
        shape = "×".join(map(str, found.shape)) or "one number"
        raise UsageError(f"the tensor is {shape}, activations here have {d_in} numbers: give a vector of {d_in}")
    if not found.is_floating_point():
        raise UsageError(f"the tensor has dtype {str(found.dtype).removeprefix('torch.')}: give floating-point numbers")
    values = tuple(found.flatten().to(torch.float64).tolist())
    if not all(map(isfinite, values)):
        n_broken = sum(not isfinite(value) for value in values)
        raise UsageError(f"{n_broken} of the vector's {d_in} numbers are NaN or infinite: give finite ones")
    if not any(values):
        raise UsageError(f"the vector's {d_in} numbers are all 0, so it has no direction: give another")
    return values


def _some(tensors: dict[str, torch.Tensor]) -> str:
    names = sorted(tensors)
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") or "none"
