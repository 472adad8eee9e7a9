"""Vectors from files: one finite vector of the right length, or one line that says what is wrong."""

import pytest
import torch
from safetensors.torch import save

from autointerp.steer_vector import MAX_BYTES, read_vector
from store.errors import UsageError

D_IN = 6
GOOD = torch.arange(D_IN, dtype=torch.float32)


@pytest.mark.parametrize("tensor", [GOOD, GOOD[None], GOOD[:, None], GOOD.double(), GOOD.bfloat16()])
def test_a_vector_is_read_whatever_its_float_type_and_empty_axes(tensor: torch.Tensor):
    assert read_vector(save({"v": tensor}), D_IN) == tuple(map(float, range(D_IN)))


def test_one_of_several_is_read_by_its_name():
    assert read_vector(save({"a": -GOOD, "b": GOOD}), D_IN, "b") == tuple(map(float, range(D_IN)))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"v": torch.ones(5)}, "the tensor is 5, activations here have 6 numbers: give a vector of 6"),
        ({"v": torch.ones(2, 3)}, "the tensor is 2×3"),
        ({"v": torch.ones(())}, "the tensor is one number"),
        ({"v": torch.full((D_IN,), float("nan"))}, "6 of the vector's 6 numbers are NaN or infinite"),
        ({"v": torch.tensor([1.0, 2, 3, 4, 5, float("inf")])}, "1 of the vector's 6"),
        ({"v": torch.zeros(D_IN)}, "all 0, so it has no direction"),
        ({"v": torch.ones(D_IN, dtype=torch.int64)}, "dtype int64: give floating-point"),
        ({"a": GOOD, "b": -GOOD}, "2 tensors, a, b: give a file with one"),
        ({}, "0 tensors, none"),
    ],
)
def test_what_is_no_vector_is_refused_in_one_line(tensors: dict, said: str):
    with pytest.raises(UsageError, match=said) as raised:
        read_vector(save(tensors), D_IN)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x04K\x01.", b"\xff" * 100, save({"v": GOOD})[:-3]])
def test_what_is_no_safetensors_is_refused(data: bytes):
    with pytest.raises(UsageError, match="no safetensors"):
        read_vector(data, D_IN)


def test_a_large_file_is_refused_unread():
    with pytest.raises(UsageError, match="give one vector"):
        read_vector(b"x" * (MAX_BYTES + 1), D_IN)


def test_a_name_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match="no tensor 'w', there is v"):
        read_vector(save({"v": GOOD}), D_IN, "w")
