"""Shuffled batches: exactly once an epoch, resumable at any batch, in a thread or not, and honestly measured."""

import gc
import threading
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from activations import shuffle as module
from activations.shuffle import Shuffled, ShuffleState, mixing
from store.errors import UsageError
from store.shards import Rows


class Memory:
    """A block whose vectors hold their own number, so that every row can be told."""

    def __init__(self, start: int, n_rows: int, n_sequences: int = 4) -> None:
        self.n_rows = n_rows
        self._number = np.arange(start, start + n_rows)
        self._seq = (self._number % n_sequences).astype(np.int32)

    def open(self) -> Rows:
        vectors = np.stack([self._number, -self._number], axis=1).astype("<f4")
        return Rows(vectors=vectors, columns={"seq": self._seq, "number": self._number})


def blocks_of(sizes: list[int]) -> list[Memory]:
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return [Memory(int(start), size) for start, size in zip(starts, sizes, strict=True)]


def every_row(columns: dict) -> np.ndarray:
    return np.arange(len(columns["seq"]))


def shuffled(sizes: list[int], batch_size: int = 7, seed: int = 0, select=every_row, **options) -> Shuffled:
    return Shuffled(
        blocks_of(sizes), select, batch_size=batch_size, seed=seed, dtype="float32", n_sequences=4,
        **{"prefetch": 0} | options,
    )  # fmt: skip


def numbers(batches: list[torch.Tensor]) -> list[int]:
    return [int(x) for batch in batches for x in batch[:, 0]]


@pytest.fixture(autouse=True)
def _small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POOL_ROWS", 25)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=9), batch_size=st.integers(1, 30), seed=st.integers(0, 9)
)
def test_every_row_is_there_exactly_once_an_epoch(sizes: list[int], batch_size: int, seed: int):
    n = sum(sizes)
    stream = shuffled(sizes, batch_size, seed)
    got = numbers(list(islice(stream, -(-3 * n // batch_size))))
    for epoch in range(3):
        assert sorted(got[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_epochs_and_seeds_have_orders_of_their_own():
    n = 60
    one = numbers(list(islice(shuffled([20, 20, 20], 10), 12)))
    other = numbers(list(islice(shuffled([20, 20, 20], 10, seed=1), 6)))
    assert one[:n] != one[n:]
    assert one[:n] != other
    assert one[:n] != sorted(one[:n])


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("n_before", [1, 4, 5, 11, 23])
def test_a_reader_goes_on_exactly_where_its_state_was_taken(prefetch: int, n_before: int):
    sizes = [13, 8, 20, 5, 17]
    whole = list(islice(shuffled(sizes), 40))
    first = shuffled(sizes, prefetch=prefetch)
    list(islice(first, n_before))
    first.close()
    rest = list(islice(shuffled(sizes, prefetch=prefetch, state=ShuffleState(*first.state)), 40 - n_before))
    assert all(torch.equal(a, b) for a, b in zip(whole[n_before:], rest, strict=True))


def test_a_thread_ahead_changes_nothing():
    direct, ahead = shuffled([9, 9, 9]), shuffled([9, 9, 9], prefetch=2)
    for _ in range(20):
        assert torch.equal(next(direct), next(ahead))
        assert direct.state == ahead.state
        assert direct.mixing == ahead.mixing
    ahead.close()


def test_only_chosen_rows_come():
    even = shuffled([10, 10, 10], 4, select=lambda columns: np.flatnonzero(columns["number"] % 2 == 0))
    assert Counter(numbers(list(islice(even, 15)))) == dict.fromkeys(range(0, 30, 2), 4)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_no_row_at_all_is_an_error_and_never_an_empty_batch(prefetch: int):
    nothing = shuffled([5, 5], select=lambda columns: np.empty(0, np.int64), prefetch=prefetch)
    with pytest.raises(UsageError, match="no rows match"):
        next(nothing)


def test_a_block_without_chosen_rows_is_passed_over():
    late = shuffled([10] * 6, 5, select=lambda columns: np.flatnonzero(columns["number"] >= 50))
    assert sorted(numbers(list(islice(late, 2)))) == list(range(50, 60))


def test_an_error_while_reading_reaches_whoever_asks(monkeypatch: pytest.MonkeyPatch):
    def broken(self: Memory) -> Rows:
        raise UsageError("shard is broken")

    monkeypatch.setattr(Memory, "open", broken)
    with pytest.raises(UsageError, match="shard is broken"):
        next(shuffled([5, 5], prefetch=2))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


def test_closing_stops_the_thread_and_so_does_letting_go():
    stream = shuffled([50, 50], prefetch=2)
    next(stream)
    assert threads()
    stream.close()
    assert not threads()
    with pytest.raises(StopIteration):
        next(stream)
    forgotten = shuffled([50, 50], prefetch=2)
    next(forgotten)
    (thread,) = [t for t in threading.enumerate() if t.name == "prefetch"]
    del forgotten
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_mixing_is_one_for_distinct_sequences_and_falls_with_repetition():
    assert mixing(np.arange(8), 100) == (8, pytest.approx(1.0))
    assert mixing(np.zeros(8, int), 100) == (1, pytest.approx(0.0))
    half = mixing(np.array([0, 0, 1, 1]), 100)
    assert half.n_distinct == 2
    assert half.entropy == pytest.approx(0.5)
    # Two sequences are all there are: no batch could mix better.
    assert mixing(np.array([0, 0, 1, 1]), 2).entropy == pytest.approx(1.0)


def test_another_seed_does_not_go_on_from_a_state():
    with pytest.raises(UsageError, match="seed 0, not 1"):
        shuffled([5], seed=1, state=ShuffleState(0, 0, 0, 0))
