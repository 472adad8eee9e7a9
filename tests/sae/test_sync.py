"""Nothing in the inner loop waits for the device, but for the steps that look."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from variants import CASES, batch, build

from sae.train import TrainConfig, train

torch.set_num_threads(1)

WAITING = ("lift_fresh", "_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select", "_unique2")
"""Operators whose result, or whose size, the host must know, or that begin on the host."""


class Syncs(TorchDispatchMode):
    """Counts calls that an accelerator would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indexed_by_mask = name.startswith("index") and any(
            isinstance(t, torch.Tensor) and t.dtype == torch.bool
            for t in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if name in WAITING or indexed_by_mask:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def _as_on_an_accelerator(monkeypatch):
    """Selections take the way without data-dependent sizes, and steps that look are rare."""
    monkeypatch.setattr("sae.dead.sync_every", lambda sae: 1000)
    monkeypatch.setattr("sae.largest.may_wait", lambda x: False)
    monkeypatch.setattr("sae.sparse.SHORT", 0)


@pytest.mark.usefixtures("_as_on_an_accelerator")
@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_nothing(case):
    sae = build(case)
    steps = train(sae, [batch(sae, seed=n) for n in range(8)], TrainConfig(n_steps=8, init_rows=64))
    next(steps)  # the first step initialises, and looks
    with Syncs() as syncs:
        list(steps)
    if "sampled" in case:
        syncs.seen.pop("lift_fresh")  # drawn on the host, copied without waiting
    assert syncs.seen == {}


def test_the_counter_sees_what_waits():
    x = torch.arange(4.0)
    with Syncs() as syncs:
        x.sum().item()
        (x > 1).nonzero()
        x[x > 1]
    assert set(syncs.seen) == {"_local_scalar_dense", "nonzero", "index"}
