"""A run that was interrupted and goes on ends with the same bytes as one that was not."""

import dataclasses

import pytest
import torch
from torch import Tensor
from variants import CASES, batch, build

from sae import EncoderSAE
from sae.optimisers import OPTIMISERS
from sae.train import Step, TrainConfig, train
from sae.training_checkpoint import N_KEPT, checkpoints, load_state, newest, save_state
from store.errors import UsageError

torch.set_num_threads(1)

N_STEPS, STOP = 12, 5


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"n_steps": N_STEPS, "init_rows": 128, "lr": 3e-3, "dead_after_fraction": 0.2, **changes})


def data(sae: EncoderSAE) -> list:
    return [batch(sae, seed=n) for n in range(N_STEPS)]


def straight(case: str, cfg: TrainConfig) -> tuple[dict[str, Tensor], list[Step]]:
    sae = build(case)
    steps = list(train(sae, data(sae), cfg))
    return sae.state_dict(), steps


def interrupted(case: str, cfg: TrainConfig, folder) -> tuple[dict[str, Tensor], list[Step]]:
    """Stopped after STOP steps, written down, read back into another SAE, and finished."""
    sae = build(case)
    training = train(sae, data(sae), cfg)
    steps = [next(training) for _ in range(STOP)]
    save_state(folder, training.state(), {"reader": [STOP]})
    other = build(case)
    saved = newest(folder)
    steps += list(train(other, data(other)[saved.extra["reader"][0] :], cfg, saved.state))
    return other.state_dict(), steps


def assert_same(first, second) -> None:
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name
        assert value.stride() == second[0][name].stride()
    assert [s.numbers() for s in first[1]] == [s.numbers() for s in second[1]]


@pytest.mark.parametrize("case", CASES)
def test_every_variant_ends_with_the_same_bytes(case, tmp_path):
    cfg = config()
    assert_same(straight(case, cfg), interrupted(case, cfg, tmp_path))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_optimiser_ends_with_the_same_bytes(optimiser, tmp_path):
    cfg = config(optimiser=optimiser)
    assert_same(straight("topk", cfg), interrupted("topk", cfg, tmp_path))


def test_annealing_and_resampling_end_with_the_same_bytes(tmp_path):
    cfg = config(k_start=12, k_anneal=0.9, resample_at=(0.6, 0.8), dead_after_fraction=0.05)
    assert_same(straight("topk", cfg), interrupted("topk", cfg, tmp_path))


def test_a_state_taken_after_the_last_step_has_nothing_left_to_do(tmp_path):
    sae = build("topk")
    training = train(sae, data(sae), config())
    assert len(list(training)) == N_STEPS
    assert list(train(build("topk"), [], config(), training.state())) == []


def test_a_state_is_a_copy_that_later_steps_do_not_change():
    sae = build("topk")
    training = train(sae, data(sae), config())
    next(training)
    state = training.state()
    before = {name: value.clone() for name, value in state.tensors.items()}
    list(training)
    assert all(torch.equal(before[name], value) for name, value in state.tensors.items())


def test_going_on_with_other_settings_says_which():
    sae = build("topk")
    training = train(sae, data(sae), config())
    next(training)
    with pytest.raises(ValueError, match=r"lr=0\.1 \(was 0\.003\), seed=4 \(was 0\)"):
        train(build("topk"), [], config(lr=0.1, seed=4), training.state())


def test_going_on_with_another_sae_says_which_setting_differs():
    sae = build("topk")
    training = train(sae, data(sae), config())
    next(training)
    other = type(sae)(dataclasses.replace(sae.cfg, k=7))
    with pytest.raises(ValueError, match=r"k=7 \(was 4\)"):
        train(other, [], config(), training.state())


def test_there_is_no_state_before_the_first_step():
    with pytest.raises(ValueError, match="before its first step"):
        train(build("topk"), [], config()).state()


@pytest.fixture
def saved(tmp_path):
    """A folder with several checkpoints."""
    sae = build("topk")
    training = train(sae, data(sae), config())
    for _ in training:
        save_state(tmp_path, training.state(), {})
    return tmp_path


def test_only_the_newest_checkpoints_are_kept(saved):
    assert [path.name for path in checkpoints(saved)] == [f"step-{n:08d}" for n in (N_STEPS - 1, N_STEPS)][-N_KEPT:]
    assert not list(saved.glob(".*"))


def test_a_checkpoint_that_is_half_written_is_not_seen(saved):
    (saved / ".step-00000099.123").mkdir()
    assert newest(saved).state.step == N_STEPS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", b"{"),
        ("state.json", b"[]"),
        ("state.json", b'{"format": "monosem-training", "format_version": 99}'),
        ("state.json", None),
        ("state.safetensors", b"half a file"),
        ("state.safetensors", None),
    ],
)
def test_a_damaged_checkpoint_says_what_to_do(saved, name, content):
    folder = checkpoints(saved)[-1]
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match="delete"):
        load_state(folder)
