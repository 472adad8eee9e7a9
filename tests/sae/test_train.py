"""The training generator: what it refuses, what it reports, what it does not depend on."""

import itertools
import math
import subprocess
import sys

import pytest
import torch

from sae import TopK, TopKConfig
from sae.metrics import evaluate
from sae.train import Step, TrainConfig, TrainingDiverged, dead_threshold, train

torch.set_num_threads(1)

D_IN, D_SAE = 16, 48


def fresh(**changes) -> TopK:
    return TopK(TopKConfig(d_in=D_IN, d_sae=D_SAE, k=4, **changes))


def batches(n: int, rows: int = 64, scale: float = 1.0, shift: float = 0.0) -> list[torch.Tensor]:
    """Rows near a 6-dimensional subspace, so that there is something to learn."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(6, D_IN, generator=generator)
    return [(torch.randn(rows, 6, generator=generator) @ basis + shift) * scale for _ in range(n)]


def run(sae: TopK, data, **changes) -> list[Step]:
    n_steps = changes.pop("n_steps", None) or len(data)
    return list(train(sae, data, TrainConfig(n_steps=n_steps, **{"init_rows": 64, **changes})))


def test_training_lowers_the_fvu():
    sae, data = fresh(), batches(150)
    held_out = batches(151)[-1:]
    sae.initialise(torch.cat(data[:2]))
    before = evaluate(sae, held_out).fvu
    run(sae, data, lr=3e-3)
    assert evaluate(sae, held_out).fvu < before / 2


def test_steps_count_from_one_and_tokens_are_rows():
    steps = run(fresh(), batches(5, rows=32))
    assert [s.step for s in steps] == [1, 2, 3, 4, 5]
    assert [s.n_tokens for s in steps] == [32, 64, 96, 128, 160]
    assert set(steps[0].numbers()) == {*Step._fields, "aux"} - {"parts"}
    assert all(isinstance(value, int | float) for value in steps[0].numbers().values())


def test_exactly_n_steps_batches_are_drawn():
    source = iter(batches(10, rows=64))
    run(fresh(), source, n_steps=4, init_rows=64)
    assert len(list(source)) == 6


def test_rows_used_to_initialise_are_trained_on_too():
    assert [s.n_tokens for s in run(fresh(), batches(4), init_rows=10_000)] == [64, 128, 192, 256]


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
def test_training_does_not_depend_on_the_scale_of_the_data(scale):
    """Guards against losses and learning rates that need the data to have one scale."""
    reference = run(fresh(), batches(40), lr=3e-3)
    scaled = run(fresh(), batches(40, scale=scale), lr=3e-3)
    assert [s.fvu.item() for s in scaled] == pytest.approx([s.fvu.item() for s in reference], rel=1e-3)


def test_training_does_not_depend_on_the_mean_of_the_data():
    reference = run(fresh(), batches(40), lr=3e-3)
    shifted = run(fresh(), batches(40, shift=50.0), lr=3e-3)
    assert [s.fvu.item() for s in shifted] == pytest.approx([s.fvu.item() for s in reference], rel=2e-2)


def test_parameters_are_in_units_of_raw_rows_after_every_step():
    """Guards against an SAE that reconstructs only rescaled rows while training, or when training is stopped early."""
    sae, data = fresh(), batches(60, scale=300.0)
    for step in train(sae, data, TrainConfig(n_steps=60, lr=3e-3, init_rows=64)):
        if step.step == 50:
            break
    assert evaluate(sae, data[50:]).fvu == pytest.approx(step.fvu.item(), rel=0.3)


def test_auxk_revives_latents_that_plain_topk_leaves_dead():
    """Guards against an auxiliary loss that is computed, logged and useless."""

    def dead_after(aux_alpha: float) -> float:
        generator = torch.Generator().manual_seed(0)
        sae, data = fresh(aux_alpha=aux_alpha), [torch.randn(64, D_IN, generator=generator) for _ in range(150)]
        sae.initialise(torch.cat(data[:2]), torch.Generator().manual_seed(0))
        with torch.no_grad():
            sae.W_enc[:, : D_SAE // 2] *= 0.01  # never among the k largest
        run(sae, data, lr=1e-2, initialise=False, dead_after_fraction=0.05)
        return evaluate(sae, data[-20:]).dead_fraction

    assert dead_after(0.0) >= 0.4
    assert dead_after(1 / 32) <= 0.1


def test_a_latent_is_dead_after_the_threshold_and_not_before():
    sae, data = fresh(aux_alpha=0.0), batches(10)
    sae.initialise(torch.cat(data), torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.b_enc[0] = -1e6
    steps = run(sae, data, initialise=False, dead_after_fraction=1.0, dead_after_tokens=64 * 5)
    silent_elsewhere = steps[4].n_dead.item()
    assert silent_elsewhere == 0
    assert [s.n_dead.item() >= 1 for s in steps] == [False] * 5 + [True] * 5


def test_dead_threshold_is_capped_at_a_fraction_of_the_run():
    long = TrainConfig(n_steps=10**6, dead_after_fraction=0.1)
    short = TrainConfig(n_steps=100, dead_after_fraction=0.1)
    assert dead_threshold(long, 4096) == 10_000_000
    assert dead_threshold(short, 4096) == 40_960


def test_learning_rate_follows_the_width_rule_unless_given():
    peak = max(s.lr for s in run(fresh(), batches(20)))
    assert peak == pytest.approx(2e-4 / math.sqrt(D_SAE / 2**14))
    assert max(s.lr for s in run(fresh(), batches(20), lr=0.5e-3)) == pytest.approx(0.5e-3)


def test_lists_generators_and_half_precision_batches_are_all_accepted():
    run(fresh(), (x.half() for x in batches(3)), n_steps=3)
    run(fresh(), itertools.cycle(batches(2)), n_steps=5)


def test_no_batches_is_refused():
    with pytest.raises(ValueError, match="batches is empty"):
        run(fresh(), [], n_steps=3)


def test_too_few_batches_is_refused():
    with pytest.raises(ValueError, match="ended after 3 of n_steps=5"):
        run(fresh(), batches(3), n_steps=5)


def test_a_wrong_width_names_both_widths():
    with pytest.raises(ValueError, match=r"\(64, 17\) but d_in=16"):
        run(fresh(), [torch.randn(64, 17)])


def test_a_single_row_is_refused():
    with pytest.raises(ValueError, match="no variance"):
        run(fresh(), [*batches(3), torch.randn(1, D_IN)])


def test_equal_rows_are_refused():
    with pytest.raises(ValueError, match="all equal"):
        run(fresh(), [torch.ones(64, D_IN)])


@pytest.mark.parametrize("where", [0, 3])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_refused_and_leave_the_sae_finite(where, bad):
    sae, data = fresh(), batches(5)
    data[where][7, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        run(sae, data)
    assert all(p.isfinite().all() for p in sae.parameters())


def test_a_loss_that_is_not_finite_says_where_training_diverged():
    with pytest.raises(TrainingDiverged, match="step 2: loss=") as caught:
        run(fresh(), batches(6), lr=1e30, warmup=0.0, decay=0.0, grad_clip=None, n_steps=6)
    assert caught.value.step == 2


def test_equal_rows_in_the_middle_are_named_and_not_the_learning_rate():
    with pytest.raises(ValueError, match="step 3 are all equal"):
        run(fresh(), [*batches(2), torch.ones(64, D_IN)])


def test_float16_parameters_are_refused():
    with pytest.raises(ValueError, match="float16"):
        train(fresh().half(), batches(2), TrainConfig(n_steps=2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_steps": 0},
        {"init_rows": 0},
        {"warmup": -0.1},
        {"decay": 1.5},
        {"lr": 0.0},
        {"lr": math.nan},
        {"grad_clip": -1.0},
        {"dead_after_tokens": 0},
        {"dead_after_fraction": 2.0},
        {"sparsity_warmup": 1.5},
        {"k_start": 0},
        {"k_anneal": -1.0},
        {"resample_at": (0.5, 1.0), "n_steps": 100},
        {"resample_at": (0.01,), "n_steps": 10},
        {"resample_at": (0.99,), "n_steps": 10},
        {"optimiser": "sgd"},
        {"betas": (0.9, 1.0)},
        {"eps": 0.0},
    ],
    ids=str,
)
def test_impossible_train_configs_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainConfig(**{"n_steps": 1, **wrong})


@pytest.mark.parametrize(
    "wrong", [{"k": 0}, {"k": D_SAE + 1}, {"d_in": 0}, {"d_sae": 0}, {"aux_alpha": -1.0}, {"k_aux": 0}], ids=str
)
def test_impossible_sae_configs_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TopKConfig(**{"d_in": D_IN, "d_sae": D_SAE, "k": 4, **wrong})


def test_importing_the_mathematics_does_not_import_store():
    code = "import sys, sae, sae.train, sae.metrics, sae.intervene, sae.synthetic; print('store' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
