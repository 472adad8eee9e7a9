"""The choice between implementations, with injected clocks; and torch's implementations against dense products."""

import logging
from functools import partial

import pytest
import torch

from sae import kernels

N, D = 7, 5
LENGTHS = [0, 2, 4, 0, 1, 0]


class Recorder:
    """An implementation that says its name and counts its calls, optionally failing instead."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name, self.error, self.calls = name, error, 0

    def __call__(self, *tensors: torch.Tensor) -> str:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.name


class Clock:
    """A timer that runs the call, and reports the seconds it was told for what came back."""

    def __init__(self, **seconds: float) -> None:
        self.seconds, self.timed = seconds, []

    def __call__(self, call) -> float:
        name = call()
        self.timed.append(name)
        return self.seconds[name]


def chooser(clock: Clock, *candidates: Recorder, failures=()) -> kernels.Chooser:
    return kernels.Chooser({"product": {c.name: c for c in candidates}}, clock, failures)


def test_the_faster_implementation_runs():
    for seconds, winner in (({"torch": 1.0, "triton": 2.0}, "torch"), ({"torch": 2.0, "triton": 1.0}, "triton")):
        choose = chooser(Clock(**seconds), Recorder("torch"), Recorder("triton"))
        assert choose("product", torch.zeros(4, 3)) == winner


def test_a_shape_is_timed_once():
    clock = Clock(torch=1.0, triton=2.0)
    choose = chooser(clock, Recorder("torch"), Recorder("triton"))
    for _ in range(3):
        choose("product", torch.zeros(4, 3))
    assert clock.timed == ["torch", "triton"]


def test_a_length_that_varies_within_a_power_of_two_is_one_shape():
    clock = Clock(torch=1.0, triton=2.0)
    choose = chooser(clock, Recorder("torch"), Recorder("triton"))
    for nnz in (130, 200, 255):
        choose("product", torch.zeros(nnz))
    assert len(clock.timed) == 2


@pytest.mark.parametrize("other", [torch.zeros(8, 3), torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.float64)])
def test_another_length_width_or_dtype_is_timed_anew(other):
    clock = Clock(torch=1.0, triton=2.0)
    choose = chooser(clock, Recorder("torch"), Recorder("triton"))
    choose("product", torch.zeros(4, 3))
    choose("product", other)
    assert len(clock.timed) == 4


def test_a_single_implementation_is_never_timed():
    clock = Clock()
    assert chooser(clock, Recorder("torch"))("product", torch.zeros(4)) == "torch"
    assert clock.timed == []


def test_an_implementation_that_cannot_run_is_reported_once_and_left_out(caplog):
    broken = Recorder("triton", OSError("no C compiler"))
    choose = chooser(Clock(torch=1.0), Recorder("torch"), broken, failures=(OSError,))
    with caplog.at_level(logging.WARNING, logger="sae.kernels"):
        assert [choose("product", torch.zeros(length)) for length in (4, 8, 16)] == ["torch"] * 3
    assert broken.calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        "product by triton cannot run here and is left out: no C compiler"
    ]


def test_a_choice_survives_a_later_failure_at_another_shape():
    triton = Recorder("triton")
    choose = chooser(Clock(torch=2.0, triton=1.0), Recorder("torch"), triton, failures=(OSError,))
    assert choose("product", torch.zeros(4)) == "triton"
    triton.error = OSError("no room")
    assert choose("product", torch.zeros(8)) == "torch"
    triton.error = None
    assert choose("product", torch.zeros(4)) == "triton"


def test_a_mistake_in_an_implementation_is_raised():
    choose = chooser(Clock(torch=1.0), Recorder("torch"), Recorder("triton", TypeError("ours")), failures=(OSError,))
    with pytest.raises(TypeError, match="ours"):
        choose("product", torch.zeros(4))


def test_a_failing_reference_is_raised():
    choose = chooser(Clock(), Recorder("torch", OSError("torch")), Recorder("triton"), failures=(OSError,))
    with pytest.raises(OSError, match="torch"):
        choose("product", torch.zeros(4))


def test_a_choice_is_logged(caplog):
    choose = chooser(Clock(torch=2.0, triton=1.0), Recorder("torch"), Recorder("triton"))
    with caplog.at_level(logging.DEBUG, logger="sae.kernels"):
        choose("product", torch.zeros(4, 3))
    assert "product at [(4, 3)]: triton" in caplog.text


@pytest.fixture
def t() -> dict[str, torch.Tensor]:
    """A float64 problem with empty rows and empty latents."""
    lengths = torch.tensor(LENGTHS)
    row_of = torch.arange(len(lengths)).repeat_interleave(lengths)
    indices = torch.randint(1, N - 1, (len(row_of),))
    normal = partial(torch.randn, dtype=torch.float64)
    return {
        "values": normal(len(row_of)),
        "W": normal(N, D),
        "G": normal(len(lengths), D),
        "indices": indices,
        "offsets": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        "row_of": row_of,
    }


def dense(t: dict[str, torch.Tensor]) -> torch.Tensor:
    empty = torch.zeros(len(LENGTHS), N, dtype=torch.float64)
    return empty.index_put((t["row_of"], t["indices"]), t["values"], accumulate=True)


def test_gather_sum_is_the_dense_product(t):
    actual = kernels.gather_sum(t["values"], t["W"], t["indices"], t["offsets"])
    torch.testing.assert_close(actual, dense(t) @ t["W"])


def test_gather_sum_of_a_transposed_table_is_the_dense_product(t):
    actual = kernels.gather_sum(t["values"], t["W"].t().contiguous().t(), t["indices"], t["offsets"])
    torch.testing.assert_close(actual, dense(t) @ t["W"])


def test_gather_dot_is_the_dense_product_at_the_kept_entries(t):
    actual = kernels.gather_dot(t["G"], t["W"], t["indices"], t["offsets"], t["row_of"])
    torch.testing.assert_close(actual, (t["G"] @ t["W"].t())[t["row_of"], t["indices"]])


def test_gather_dot_reads_a_gradient_that_one_number_fills(t):
    filled = torch.ones((), dtype=torch.float64).expand(len(LENGTHS), D)
    actual = kernels.gather_dot(filled, t["W"], t["indices"], t["offsets"], t["row_of"])
    torch.testing.assert_close(actual, t["W"].sum(1)[t["indices"]])


def test_nothing_kept_gives_zeros(t):
    nothing, ends = torch.zeros(0, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
    none = nothing.double()
    assert torch.equal(kernels.gather_sum(none, t["W"], nothing, ends), torch.zeros(3, D, dtype=torch.float64))
    assert kernels.gather_dot(t["G"][:3], t["W"], nothing, ends, nothing).shape == (0,)


def test_the_products_carry_no_gradient_whichever_implementation_runs(t):
    W, values = t["W"].requires_grad_(), t["values"].requires_grad_()
    assert not kernels.gather_sum(values, W, t["indices"], t["offsets"]).requires_grad
    assert not kernels.gather_dot(t["G"], W, t["indices"], t["offsets"], t["row_of"]).requires_grad


def test_torch_comes_first_for_every_product():
    assert [next(iter(candidates)) for candidates in kernels.implementations().values()] == ["torch"] * 2
