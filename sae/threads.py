"""One thread for work in small pieces: pieces shared among threads wait for a core whenever other cores are busy.

On two cores that some ten other processes wanted too, a thousand steps of a 128-latent SAE took 134 s in two threads
and 10 s in one; 3 s when they were calmer. What one thread computes also has the same bits whatever number is set.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes in the calling thread alone while the block runs; also a decorator."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
