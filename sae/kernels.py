"""The products of a sparse step over CSR groups, each run by the implementation that measures fastest.

Group g holds the entries offsets[g] : offsets[g + 1]. On a CPU the implementation is always torch's. On CUDA each
product is timed once per shape and dtype; implementations differ in summation order and in nothing else. A clock may
choose otherwise in another run, so two CUDA runs agree bit for bit only under torch.use_deterministic_algorithms(True),
which keeps torch's everywhere.
"""

import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

log = logging.getLogger(__name__)

_WARMUP_CALLS = 3
_TIMED_CALLS = 10
_SUM_MODE = 0
"""ATen's number for mode="sum" of embedding_bag."""
_NO_PADDING = -1

Implementations = Mapping[str, Callable[..., Any]]
Timer = Callable[[Callable[[], object]], float]


def torch_gather_sum(
    values: Float[Tensor, " nnz"],
    W: Float[Tensor, "n d"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " groups_plus_1"],
) -> Float[Tensor, "groups d"]:
    """out[g] = Σ_{e in group g} values[e] · W[indices[e]]."""
    # detached: for a table that wants a gradient ATen also looks up the bag of each entry
    table = W.detach().contiguous()
    return F.embedding_bag(indices, table, offsets, per_sample_weights=values, mode="sum", include_last_offset=True)


def torch_gather_dot(
    G: Float[Tensor, "groups d"],
    W: Float[Tensor, "n d"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " groups_plus_1"],
    groups: Int[Tensor, " nnz"],
) -> Float[Tensor, " nnz"]:
    """out[e] = W[indices[e]] · G[groups[e]], by ATen's gradient of an embedding bag to its weights.

    Ten times a gather's speed.
    """
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        G.contiguous(), W.contiguous(), indices, offsets, groups, _SUM_MODE, _NO_PADDING
    )


TORCH: Mapping[str, Callable[..., Any]] = {"gather_sum": torch_gather_sum, "gather_dot": torch_gather_dot}


def implementations() -> dict[str, Implementations]:
    """For each product its implementations that may run here by name, torch's first."""
    from sae import triton_kernels  # not before a CUDA tensor comes: importing triton takes half a second

    table: dict[str, dict[str, Callable[..., Any]]] = {product: {"torch": run} for product, run in TORCH.items()}
    if triton_kernels.available():
        table["gather_sum"]["triton"] = triton_kernels.gather_sum
        table["gather_dot"]["triton"] = lambda G, W, indices, offsets, _: triton_kernels.gather_dot(
            G, W, indices, offsets
        )
    return dict(table)


def cuda_seconds(call: Callable[[], object]) -> float:
    """Seconds of one call on the current CUDA stream, the mean of several after a warm-up. Waits for the device."""
    for _ in range(_WARMUP_CALLS):
        call()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(_TIMED_CALLS):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / _TIMED_CALLS


def _shape_class(tensors: tuple[Tensor, ...]) -> tuple[object, ...]:
    """Dtypes, devices and widths, with lengths to the next power of two: nnz varies from step to step."""
    return tuple((t.dtype, t.device, len(t).bit_length(), *t.shape[1:]) for t in tensors)


class Chooser:
    """Runs a product by its fastest implementation, found by timing all of them at the first call of a shape.

    The first of a product must run. Another one that raises one of `failures` is reported once and left out.
    """

    def __init__(
        self, table: Mapping[str, Implementations], timer: Timer, failures: tuple[type[Exception], ...] = ()
    ) -> None:
        self._table = {product: dict(candidates) for product, candidates in table.items()}
        self._timer = timer
        self._failures = failures
        self._chosen: dict[tuple[object, ...], Callable[..., Any]] = {}

    def __call__(self, product: str, *tensors: Tensor) -> Any:
        key = (product, *_shape_class(tensors))
        if key not in self._chosen:
            self._chosen[key] = self._fastest(product, tensors)
        return self._chosen[key](*tensors)

    def _fastest(self, product: str, tensors: tuple[Tensor, ...]) -> Callable[..., Any]:
        candidates = self._table[product]
        reference, *others = candidates
        if not others:
            return candidates[reference]
        seconds = {reference: self._timer(partial(candidates[reference], *tensors))}
        for name in others:
            try:
                seconds[name] = self._timer(partial(candidates[name], *tensors))
            except self._failures as error:
                log.warning("%s by %s cannot run here and is left out: %s", product, name, error)
                del candidates[name]
        fastest = min(seconds, key=seconds.__getitem__)
        log.debug("%s at %s: %s (seconds: %s)", product, [tuple(t.shape) for t in tensors], fastest, seconds)
        return candidates[fastest]


@cache
def _chooser() -> Chooser:
    from sae import triton_kernels

    return Chooser(implementations(), cuda_seconds, triton_kernels.FAILURES)


def _run(product: str, *tensors: Tensor) -> Any:
    if tensors[0].is_cuda and not torch.are_deterministic_algorithms_enabled():
        with torch.cuda.device_of(tensors[0]):
            return _chooser()(product, *tensors)
    return TORCH[product](*tensors)


@torch.no_grad()
def gather_sum(
    values: Float[Tensor, " nnz"],
    W: Float[Tensor, "n d"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " groups_plus_1"],
) -> Float[Tensor, "groups d"]:
    """out[g] = Σ_{e in group g} values[e] · W[indices[e]], for values and W of one dtype. Carries no gradient."""
    return _run("gather_sum", values, W, indices, offsets)


@torch.no_grad()
def gather_dot(
    G: Float[Tensor, "groups d"],
    W: Float[Tensor, "n d"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " groups_plus_1"],
    groups: Int[Tensor, " nnz"],
) -> Float[Tensor, " nnz"]:
    """out[e] = W[indices[e]] · G[groups[e]], for G and W of one dtype. Carries no gradient."""
    return _run("gather_dot", G, W, indices, offsets, groups)
