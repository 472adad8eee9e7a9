"""Rows come in the order of their text, whatever a harvest did to it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from harvests import CFG, HOOKS

from activations.harvest import harvest
from activations.reader import Activations, RowSet
from activations.text_order import Placed, in_text_order
from store.run import Run


@pytest.fixture
def rows(run: Run) -> RowSet:
    return Activations(run, HOOKS[0]).rows("train")


def everything(rows: RowSet, batch_size: int = 100, n_rows: int | None = None) -> Placed:
    first, *others = in_text_order(rows, batch_size, n_rows)
    for batch in others:
        first = first.followed_by(batch)
    return first


def test_every_chosen_row_comes_once_and_in_order(rows: RowSet):
    found = everything(rows)
    assert len(found.x) == len(rows)
    place = found.columns["seq"].astype(np.int64) * 64 + found.columns["pos"]
    assert (np.diff(place) > 0).all()


def test_columns_are_those_of_their_row(rows: RowSet):
    found = everything(rows)
    stored = {}
    for block in rows.activations.blocks:
        opened = block.open()
        labels = zip(*(opened.columns[name].tolist() for name in ("seq", "pos", "doc_id", "token_id")), strict=True)
        stored |= dict(zip(labels, torch.from_numpy(opened.vectors).float(), strict=True))
    names = ("seq", "pos", "doc_id", "token_id")
    for label, x in zip(zip(*(found.columns[name].tolist() for name in names), strict=True), found.x, strict=True):
        assert torch.equal(stored[label], x)


def test_all_batches_but_the_last_are_full(rows: RowSet):
    sizes = [len(batch.x) for batch in in_text_order(rows, 130)]
    assert set(sizes[:-1]) == {130}
    assert 0 < sizes[-1] <= 130


@pytest.mark.parametrize("n_rows", [1, 100, 150, 10**6])
def test_a_number_of_rows_is_a_prefix(rows: RowSet, n_rows: int):
    whole, some = everything(rows), everything(rows, n_rows=n_rows)
    assert torch.equal(some.x, whole.x[:n_rows])
    assert len(some.columns["seq"]) == min(n_rows, len(rows))


@pytest.mark.parametrize("change", [{"seed": 9}, {"shard_rows": 170, "window_shards": 3}, {"keep_activations": "none"}])
def test_order_depends_on_the_text_alone(rows: RowSet, change: dict, tmp_path: Path):
    other = Activations(harvest(dataclasses.replace(CFG, **change), tmp_path), HOOKS[0]).rows("train")
    expected, found = everything(rows), everything(other)
    # Rows computed in batches of another shape may be rounded to the next float16: half of 2^-10 on either side.
    torch.testing.assert_close(found.x, expected.x, rtol=2**-10, atol=1e-6)
    assert all(np.array_equal(found.columns[name], column) for name, column in expected.columns.items())


def test_no_chosen_row_is_no_batch(run: Run):
    assert list(in_text_order(Activations(run, HOOKS[0]).rows("all", ("sink",)), 10)) == []
