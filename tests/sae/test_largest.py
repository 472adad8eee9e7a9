"""Selections against torch.topk and the definition, ties and awkward shapes included."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sae import largest
from sae.largest import above, row_largest
from sae.room import Room
from sae.sparse import Pattern

torch.set_num_threads(1)

DTYPES = (torch.float32, torch.float64)
SHAPES = [(1, 1, 1), (1, 5, 5), (3, 16, 1), (3, 64, 64), (7, 101, 3), (2, 127, 8), (5, 4608, 32), (300, 1031, 16)]
"""Rows, latents and k: with groups and without, one block and several, remainders of a group and of a block."""


def normal(batch: int, d_sae: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch, d_sae, dtype=dtype, generator=torch.Generator().manual_seed(batch * d_sae))


def matrix(seed: int, batch: int, d_sae: int, n_levels: int, shift: float, dtype: torch.dtype) -> torch.Tensor:
    """With few levels nearly everything is tied; `shift` moves it all below zero or above."""
    levels = torch.randint(-n_levels, n_levels + 1, (batch, d_sae), generator=torch.Generator().manual_seed(seed))
    return (levels / n_levels + shift).to(dtype)


matrices = st.builds(
    matrix,
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 5),
    d_sae=st.integers(1, 200),
    n_levels=st.sampled_from([1, 3, 10**6]),
    shift=st.sampled_from([0.0, -0.9, -2.0, 2.0]),
    dtype=st.sampled_from(DTYPES),
)


def flat(pattern: Pattern) -> list[int]:
    """Positions in the flattened matrix, in the order they are given."""
    assert torch.equal(pattern.rows, Pattern(pattern.indices, pattern.offsets, pattern.d_sae).rows)
    return (pattern.rows * pattern.d_sae + pattern.indices).tolist()


def batch_largest(pre_acts: torch.Tensor, n: int, floor: float = 0.0, size: int = 10**9) -> Pattern:
    """Of blocks of `size` rows; checks that what comes with the entries is what they are."""
    blocks = pre_acts.split(size)
    pattern, values = largest.batch_largest(lambda: iter(blocks), len(pre_acts), n, torch.tensor(floor))
    assert torch.equal(values, pre_acts.detach()[pattern.rows, pattern.indices])
    return pattern


def assert_row_largest(pre_acts: torch.Tensor, indices: torch.Tensor, k: int) -> None:
    assert indices.dtype == torch.int64
    assert all(len(set(row)) == k for row in indices.tolist())
    ours = pre_acts.gather(1, indices).sort(dim=1, descending=True).values
    assert torch.equal(ours, pre_acts.topk(k, dim=1).values)


def assert_batch_largest(pre_acts: torch.Tensor, pattern: Pattern, n: int) -> None:
    positions = flat(pattern)
    assert positions == sorted(set(positions))
    ours = pre_acts.flatten()[positions].sort(descending=True).values
    expected = pre_acts.flatten().sort(descending=True).values[:n]
    assert torch.equal(ours, expected[expected > 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "d_sae", "k"), SHAPES)
def test_row_largest_is_topk(batch, d_sae, k, dtype):
    pre_acts = normal(batch, d_sae, dtype)
    assert_row_largest(pre_acts, row_largest(pre_acts, k), k)


@pytest.mark.parametrize(("batch", "d_sae", "k"), SHAPES)
def test_sorted_row_largest_descends(batch, d_sae, k):
    pre_acts = normal(batch, d_sae)
    assert torch.equal(pre_acts.gather(1, row_largest(pre_acts, k, ordered=True)), pre_acts.topk(k, dim=1).values)


@settings(max_examples=200)
@given(matrices, st.integers(1, 20))
def test_row_largest_is_topk_whatever_is_tied(pre_acts, k):
    k = min(k, pre_acts.shape[1])
    assert_row_largest(pre_acts, row_largest(pre_acts, k), k)


def test_row_largest_takes_what_is_finite_before_what_is_not():
    pre_acts = torch.full((3, 200), -torch.inf)
    pre_acts[1, 50:52] = torch.tensor([1.0, 2.0])
    pre_acts[2, 7::5] = torch.arange(39.0)
    assert_row_largest(pre_acts, row_largest(pre_acts, 4), 4)


def test_row_largest_of_nan_are_latents_each_once():
    """Whether the loss is finite is the training loop's to check."""
    pre_acts = normal(4, 200)
    pre_acts[1] = torch.nan
    pre_acts[2, ::3] = torch.nan
    pre_acts[3, 5] = torch.nan
    for row in row_largest(pre_acts, 4).tolist():
        assert len(set(row)) == 4
        assert set(row) <= set(range(200))


def test_largest_does_not_depend_on_memory_order_or_gradients():
    pre_acts = normal(200, 40).t().requires_grad_()
    assert_row_largest(pre_acts, row_largest(pre_acts, 3), 3)
    assert_batch_largest(pre_acts, batch_largest(pre_acts, 100), 100)


def test_threads_change_nothing(monkeypatch):
    pre_acts = normal(300, 1031)
    alone = row_largest(pre_acts, 16), batch_largest(pre_acts, 900).indices
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = row_largest(pre_acts, 16), batch_largest(pre_acts, 900).indices
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 100, 9000, 300 * 1031])
def test_batch_largest_is_the_largest_positive(n, dtype):
    pre_acts = normal(300, 1031, dtype)
    assert_batch_largest(pre_acts, batch_largest(pre_acts, n), n)


@pytest.mark.parametrize("floor", [0.0, 0.5, 1.0, 100.0])
@pytest.mark.parametrize("size", [1, 7, 300])
def test_neither_blocks_nor_a_wrong_guess_change_the_largest_of_a_batch(size, floor):
    pre_acts = normal(300, 101)
    assert_batch_largest(pre_acts, batch_largest(pre_acts, 2000, floor, size), 2000)


@settings(max_examples=200)
@given(matrices, st.integers(1, 50))
def test_batch_largest_is_the_largest_positive_whatever_is_tied(pre_acts, n):
    assert_batch_largest(pre_acts, batch_largest(pre_acts, n), n)


def test_batch_largest_of_one_row_in_many_is_found():
    """The sample that the threshold is estimated from cannot know."""
    pre_acts = -normal(2000, 577).abs()
    pre_acts[1234] *= -1
    assert_batch_largest(pre_acts, batch_largest(pre_acts, 400), 400)


def test_no_rows_keep_nothing():
    empty = torch.zeros(0, 8)
    assert row_largest(empty, 2).shape == (0, 2)
    assert batch_largest(empty, 3).offsets.tolist() == above(empty, 0.0).offsets.tolist() == [0]


@settings(max_examples=100)
@given(matrices, st.integers(0, 2**31))
def test_above_is_every_entry_above_its_threshold(pre_acts, seed):
    thresholds = torch.rand(pre_acts.shape[1], generator=torch.Generator().manual_seed(seed), dtype=pre_acts.dtype)
    for threshold in (thresholds, thresholds[0], thresholds[0].item()):
        expected = (pre_acts > threshold).flatten().nonzero().squeeze(1).tolist()
        assert flat(above(pre_acts, threshold)) == expected


# --- What runs on an accelerator, on a CPU: the same entries ---


@pytest.fixture
def _no_waiting(monkeypatch):
    monkeypatch.setattr(largest, "may_wait", lambda x: False)


@pytest.mark.usefixtures("_no_waiting")
def test_where_nothing_is_waited_for_the_largest_of_a_batch_are_the_same():
    pre_acts = normal(300, 101)
    assert_batch_largest(pre_acts, batch_largest(pre_acts, 900), 900)


@pytest.mark.usefixtures("_no_waiting")
def test_where_nothing_is_waited_for_what_is_not_positive_fills_up():
    pattern = batch_largest(-normal(5, 7).abs(), 12)
    assert pattern.offsets[-1] == len(pattern.indices) == 12


@pytest.mark.usefixtures("_no_waiting")
def test_entries_above_a_threshold_come_first_and_the_rest_is_marked():
    pre_acts, threshold = normal(30, 101), torch.linspace(0.5, 1.5, 101)
    room = Room()
    padded = above(pre_acts, threshold, room)
    wanted = (pre_acts > threshold).flatten().nonzero().squeeze(1).tolist()
    assert len(padded.indices) == pre_acts.numel()
    assert padded.n_real == len(wanted)
    assert flat(padded)[: len(wanted)] == wanted
    assert set(flat(padded)[len(wanted) :]) == {29 * 101}


@pytest.mark.usefixtures("_no_waiting")
def test_room_follows_what_is_needed_and_says_what_did_not_fit():
    pre_acts, room = normal(30, 101), Room()
    above(pre_acts, 2.0, room)
    assert room.look() == 0
    n = int((pre_acts > 2.0).sum())
    assert n < len(above(pre_acts, 2.0, room).indices) < 2 * n
    above(pre_acts, 0.0, room)
    assert room.look() == int((pre_acts > 0).sum()) - room_of(n)
    assert len(above(pre_acts, 0.0, room).indices) >= (pre_acts > 0).sum()
    assert room.look() == 0
    assert room.look() == 0


def room_of(n: int) -> int:
    """Entries there is room for after `n` were needed."""
    return -(-3 * n // 2)


def test_nothing_waits_for_an_accelerator():
    """Tensors without data refuse whatever would need a value."""
    pre_acts, room = torch.empty(30, 101, device="meta"), Room()
    assert row_largest(pre_acts, 5).shape == (30, 5)
    found, values = largest.batch_largest(lambda: iter([pre_acts]), 30, 150, torch.empty((), device="meta"))
    assert found.indices.shape == values.shape == (150,)
    assert above(pre_acts, torch.empty(101, device="meta"), room).indices.shape == (30 * 101,)
