"""Moments: equal to a two-pass oracle in float64, however the rows are cut, on data made to break sums of squares."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.statistics import (
    Moments,
    by_group,
    chosen,
    merged,
    moments,
    read_statistics,
    write_statistics,
)
from store.errors import UsageError
from store.shards import TOKEN_CLASSES, Rows

HOSTILE = {
    "plain": lambda x: x,
    "giant mean": lambda x: x + 30_000,
    "one giant dimension": lambda x: x * torch.tensor([1.0, 5000.0, 1.0]),
    "one giant row": lambda x: torch.cat([x[:-1], 60_000 * torch.ones(1, 3)]),
}


def rows(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def agrees(found: Moments, x: torch.Tensor) -> None:
    x = x.double()
    assert found.n == len(x)
    np.testing.assert_allclose(found.mean, x.mean(0).numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.variance, x.var(0, correction=0).numpy(), rtol=1e-9)
    assert found.mean_square_norm == pytest.approx(float(x.square().sum(1).mean()), rel=1e-12)
    assert found.mean_norm == pytest.approx(float(x.norm(dim=1).mean()), rel=1e-6)
    assert found.max_abs == float(x.abs().max())
    assert found.total_variance == pytest.approx(float((x - x.mean(0)).square().sum(1).mean()), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", HOSTILE)
def test_moments_equal_two_passes_in_float64(kind: str, dtype: torch.dtype):
    x = HOSTILE[kind](rows(5000)).to(dtype)
    agrees(moments(x), x)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 300), max_size=5))
def test_however_rows_are_cut_the_merged_moments_are_the_same(cuts: list[int]):
    x = rows(300) + 1000
    parts = np.split(np.arange(300), sorted(cuts))
    groups = [{("h", "train", "normal"): moments(x[torch.from_numpy(part)])} for part in parts]
    agrees(merged(groups)["h", "train", "normal"], x)


def test_groups_are_kept_apart_and_come_together_when_asked(tmp_path: Path):
    x = rows(400)
    token_class = np.arange(400) % 4
    heldout = np.arange(400) % 3 == 0
    stored = Rows(vectors=x.numpy(), columns={"token_class": token_class, "doc_id": np.arange(400)})
    write_statistics(tmp_path / "s.parquet", by_group({"h": stored}, "float32", heldout))
    groups = read_statistics(tmp_path / "s.parquet")
    assert len(groups) == 8
    names = ("normal", "sink")
    wanted = np.isin(token_class, [TOKEN_CLASSES[name] for name in names])
    agrees(chosen(groups, "h", "train", names), x[torch.from_numpy(wanted & ~heldout)])
    agrees(chosen(groups, "h", "all", tuple(TOKEN_CLASSES)), x)
    assert chosen(groups, "h", "train", ()).n == 0


def test_a_damaged_file_says_what_to_do(tmp_path: Path):
    (tmp_path / "s.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UsageError, match="--repair"):
        read_statistics(tmp_path / "s.parquet")
