"""One thread for work in small pieces: pieces shared among threads wait for a core whenever other cores are busy.

On two cores that some ten other processes wanted too, a thousand steps of a 128-latent SAE took 134 s in two threads
and 10 s in one; 3 s when they were calmer. What one thread computes also has the same bits whatever number is set.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes in the calling thread alone while the block runs; also a decorator."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_blas_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Keeps BLAS and OpenMP to one thread while `function` runs: shared out, a probe's small products take ten times
    as long on a machine that does anything else."""

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(limits=1):
            return function(*args, **kwargs)

    return limited
