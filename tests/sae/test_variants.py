"""What is special to a variant: prefixes, codes, maps from one place to another, several places at once."""

import dataclasses
import math

import pytest
import torch
from variants import D_IN, D_OUT, D_SAE, batch, build, moved, rows, targets

from sae import Crosscoder, CrosscoderConfig, Discrete, DiscreteConfig, Matryoshka, MatryoshkaConfig, Phase
from sae.centre import geometric_median
from sae.codes import NULL
from sae.metrics import evaluate
from sae.train import TrainConfig, train

torch.set_num_threads(1)


# Matryoshka


def test_the_loss_is_the_mean_over_separate_forwards_of_the_prefixes():
    sae = moved("matryoshka")
    x = rows()
    loss = sae.loss(x)
    acts = loss.latents.dense()
    total = (x - x.mean(0)).square().sum()
    separate = [(acts[:, :m] @ sae.W_dec[:m] + sae.b_dec - x).square().sum() / total for m in (5, 20, D_SAE)]
    torch.testing.assert_close(loss.total, sum(separate) / 3)
    torch.testing.assert_close(loss.fvu, separate[-1])


def test_early_latents_reconstruct_better_than_those_of_a_plain_sae():
    def fvu_of_first(case: str) -> float:
        sae = build(case)
        data = [rows(256, seed=n).float() for n in range(300)]
        list(train(sae, data, TrainConfig(n_steps=300, lr=3e-3, init_rows=512)))
        x = rows(2000, seed=999).float()
        acts = sae.encode(x).dense()[:, :10]
        x_hat = acts @ sae.W_dec[:10] + sae.b_dec
        return ((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()

    assert fvu_of_first("matryoshka") < 0.9 * fvu_of_first("batch_topk")


def test_sampled_prefixes_are_new_each_time_short_more_often_and_end_with_all():
    sae = Matryoshka(MatryoshkaConfig(d_in=D_IN, d_sae=4096, k=4, n_sampled=1000))
    drawn = sae.prefixes(torch.Generator().manual_seed(0))
    assert (drawn.diff() > 0).all()
    assert drawn[-1] == 4096
    assert drawn[0] >= 1
    assert drawn.float().median() < 4096 / 4
    assert not torch.equal(drawn, sae.prefixes(torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    "wrong", [{"prefixes": (5, 5)}, {"prefixes": (20, 5)}, {"prefixes": (0,)}, {"prefixes": (41,)}, {"n_sampled": -1}]
)
def test_impossible_prefixes_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MatryoshkaConfig(d_in=D_IN, d_sae=D_SAE, k=4, **wrong)


# Codes


def test_a_row_is_exactly_its_codes():
    """Discrete in training: nothing but the integers is needed to reconstruct."""
    sae = moved("discrete")
    codes = sae.codes(rows())
    torch.testing.assert_close(sae.decode_codes(codes), sae(rows()).x_hat)


def test_values_are_whole_steps_within_the_levels():
    sae = moved("discrete")
    latents = sae.encode(rows())
    steps = latents.values / sae.step_size[latents.indices]
    torch.testing.assert_close(steps, steps.round())
    assert set(steps[latents.active].round().long().tolist()) <= {1, 2, 3}
    assert len(set(steps[latents.active].round().long().tolist())) > 1


def test_binary_latents_are_on_or_off():
    sae = moved("discrete binary batch")
    sae.observe(sae.loss(rows(seed=1)))
    latents = sae.encode(rows())
    torch.testing.assert_close(latents.values, sae.step_size[latents.indices])


def test_bits_of_independent_latents_are_their_entropies():
    sae = Discrete(DiscreteConfig(d_in=D_IN, d_sae=3, k=1, levels=2))
    counts = torch.tensor([25, 25, 0, 50, 0, 0])  # of 100: a quarter at each level, half at level 2, never
    wanted = (2 * 0.25 * 2 + 0.5 * 1) + 1.0
    assert sae.bits_per_row(counts, 100).item() == pytest.approx(wanted)


def test_bits_of_one_code_a_row_are_its_entropy_null_included():
    sae = build("argmax_codes")
    counts = torch.zeros(D_SAE, dtype=torch.int64)
    counts[3], counts[9] = 25, 25
    assert sae.bits_per_row(counts, 100).item() == pytest.approx(0.5 * 1 + 2 * 0.25 * 2)


def test_more_levels_cost_more_bits_and_leave_less_unexplained():
    def measured(levels: int) -> tuple[float, float]:
        sae = Discrete(DiscreteConfig(d_in=D_IN, d_sae=D_SAE, k=4, levels=levels))
        data = [rows(256, seed=n).float() for n in range(300)]
        list(train(sae, data, TrainConfig(n_steps=300, lr=3e-3, init_rows=512)))
        found = evaluate(sae, [rows(4000, seed=999).float()])
        return found.bits_per_row, found.fvu

    (few_bits, worse), (many_bits, better) = measured(1), measured(8)
    assert few_bits < many_bits
    assert better < worse


def test_the_code_of_a_row_is_its_largest_latent_and_null_where_none_fires():
    """An argmax over zeros put silent rows under latent 0."""
    sae = moved("argmax_codes")
    x = rows()
    dense = sae.encode(x).dense()
    assert torch.equal(sae.codes(x).squeeze(1), dense.argmax(dim=1))
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
    assert (sae.codes(x) == NULL).all()
    assert evaluate(sae, [x]).bits_per_row == 0


def test_codes_do_not_depend_on_the_scale_of_the_data():
    """The published recipe's do: its penalty acts on data of whatever scale."""
    found = []
    for scale in (1.0, 4.0):
        sae = build("argmax_codes")
        data = [rows(128, seed=n).float() * scale for n in range(60)]
        list(train(sae, data, TrainConfig(n_steps=60, lr=3e-3, init_rows=256)))
        found.append(sae.codes(rows(300, seed=99).float() * scale))
    assert (found[0] == found[1]).float().mean() > 0.98


# Transcoders


@pytest.mark.parametrize("case", ["transcoder", "skip_transcoder", "transcoder unit batch"])
def test_transcoders_learn_the_map(case):
    sae = build(case)
    data = [batch(sae, 256, seed=n) for n in range(300)]
    list(train(sae, data, TrainConfig(n_steps=300, lr=3e-3, init_rows=512)))
    found = evaluate(sae, [batch(sae, 2000, seed=999)])
    assert found.fvu < 0.5
    assert sae(rows().float()).x_hat.shape == (64, D_OUT)


def test_a_linear_map_needs_no_latents_with_a_skip():
    def fvu(case: str) -> float:
        sae = build(case)
        mix = torch.randn(D_IN, D_OUT, generator=torch.Generator().manual_seed(5))
        data = [(rows(256, seed=n).float(), rows(256, seed=n).float() @ mix) for n in range(300)]
        list(train(sae, data, TrainConfig(n_steps=300, lr=1e-2, init_rows=512)))
        return evaluate(sae, data[-1:]).fvu

    assert fvu("skip_transcoder") < 0.2 * fvu("transcoder")


def test_a_transcoder_without_targets_is_refused():
    with pytest.raises(ValueError, match="targets"):
        list(train(build("transcoder"), [rows()], TrainConfig(n_steps=1)))


def test_targets_of_another_width_name_both_widths():
    with pytest.raises(ValueError, match=r"\(64, 9\) but d_out=7"):
        list(train(build("transcoder"), [(rows(), rows(width=9))], TrainConfig(n_steps=1)))


def test_targets_for_other_rows_are_refused():
    sae = build("transcoder")
    with pytest.raises(ValueError, match="64 rows and 32 targets"):
        list(train(sae, [(rows(), targets(sae, 32))], TrainConfig(n_steps=1)))


def test_training_a_transcoder_does_not_depend_on_the_scale_of_its_targets():
    def trained(scale: float) -> float:
        sae = build("transcoder")
        data = [(x.float(), y.float() * scale) for x, y in (batch(sae, 128, seed=n) for n in range(60))]
        return list(train(sae, data, TrainConfig(n_steps=60, lr=3e-3, init_rows=256)))[-1].fvu.item()

    assert trained(1000.0) == pytest.approx(trained(1.0), rel=1e-3)


# Crosscoders


def test_sites_of_different_scale_weigh_the_same():
    """Without a scale for each site, the one with the largest norm takes all latents."""

    def site_errors(scale: float) -> list[float]:
        sae = Crosscoder(CrosscoderConfig(d_in=D_IN, d_sae=D_SAE, k=4, site_widths=(6, 6)))
        factor = torch.cat([torch.full((6,), scale), torch.ones(6)])
        data = [rows(256, seed=n).float() * factor for n in range(150)]
        list(train(sae, data, TrainConfig(n_steps=150, lr=3e-3, init_rows=512)))
        x = rows(2000, seed=999).float() * factor
        pairs = zip(sae.sites(x), sae.sites(sae(x).x_hat), strict=True)
        return [((a - b).square().sum() / (a - a.mean(0)).square().sum()).item() for a, b in pairs]

    assert site_errors(1000.0) == pytest.approx(site_errors(1.0), rel=1e-2)


def test_latents_live_where_what_they_stand_for_lives():
    """One source at the first site only, one at both: norms of the decoder rows tell them apart."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2, D_IN, generator=generator)
    directions[0, 6:] = 0
    sae = Crosscoder(CrosscoderConfig(d_in=D_IN, d_sae=2, k=1, site_widths=(6, 6), keep="row"))
    data = [
        (torch.eye(2)[torch.randint(2, (256,), generator=generator)] * torch.rand(256, 1, generator=generator))
        @ directions
        + 0.01 * torch.randn(256, D_IN, generator=generator)
        for _ in range(400)
    ]
    list(train(sae, data, TrainConfig(n_steps=400, lr=1e-2, init_rows=512)))
    share = sae.site_norms()[1] / sae.site_norms().sum(0)
    assert share.min() < 0.1
    assert share.max() > 0.25


@pytest.mark.parametrize("widths", [(), (5, 6), (12, 0), (-1, 13)])
def test_site_widths_that_do_not_add_up_are_refused(widths):
    with pytest.raises(ValueError, match="add up to d_in=12"):
        CrosscoderConfig(d_in=D_IN, d_sae=D_SAE, k=4, site_widths=widths)


# What all share


def test_the_geometric_median_is_not_moved_by_one_far_row():
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    far = torch.cat([x, torch.full((1, 5), 1e6)])
    assert (geometric_median(far) - geometric_median(x)).norm() < 0.05
    assert (far.mean(0) - x.mean(0)).norm() > 1000


def test_the_geometric_median_minimises_the_sum_of_distances():
    x = torch.rand(300, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 3
    found = geometric_median(x).requires_grad_()
    (gradient,) = torch.autograd.grad((x - found).norm(dim=1).mean(), found)
    assert gradient.norm() < 1e-4


@pytest.mark.parametrize("n", [1, 2])
def test_the_geometric_median_of_one_or_equal_rows_is_that_row(n):
    torch.testing.assert_close(geometric_median(torch.ones(n, 3)), torch.ones(3).double())


@pytest.mark.parametrize(("name", "centre"), [("mean", lambda x: x.mean(0)), ("zero", lambda x: torch.zeros(D_IN))])
def test_b_dec_starts_from_the_centre_that_is_named(name, centre):
    sae = build("topk")
    sae = type(sae)(dataclasses.replace(sae.cfg, b_dec_init=name))
    sae.initialise(rows().float())
    torch.testing.assert_close(sae.b_dec, centre(rows().float()))


def test_resampling_while_training_revives_what_would_stay_dead():
    def dead_after(fractions: tuple[float, ...]) -> float:
        sae = build("relu")
        data = [rows(128, seed=n).float() for n in range(120)]
        sae.initialise(torch.cat(data[:4]), torch.Generator().manual_seed(0))
        with torch.no_grad():
            sae.b_enc[: D_SAE // 2] = -1e3
        cfg = TrainConfig(
            n_steps=120, lr=3e-3, initialise=False, resample_at=fractions, dead_after_fraction=0.1, init_rows=128
        )
        list(train(sae, data, cfg))
        return evaluate(sae, data[-20:]).dead_fraction

    assert dead_after(()) >= 0.45
    assert dead_after((0.3, 0.5)) <= 0.2


def test_a_dead_dictionary_stops_with_its_cause():
    from sae.train import TrainingDiverged

    sae = build("relu")
    data = [rows(64, seed=n).float() for n in range(30)]
    sae.initialise(torch.cat(data[:2]))
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
    with pytest.raises(TrainingDiverged, match="all 40 latents are dead"):
        list(train(sae, data, TrainConfig(n_steps=30, initialise=False, dead_after_fraction=0.2, init_rows=64)))


@pytest.mark.parametrize("case", ["relu", "relu free", "gated", "argmax_codes"])
def test_where_half_of_all_latents_fire_they_do_not_overshoot_at_first(case):
    """Gradients of a loss of many times the variance made Adam's steps too short for the rest of a short run."""
    sae = build(case)
    sae.initialise(rows(500).float(), torch.Generator().manual_seed(0))
    assert sae.loss(rows(500, seed=1).float()).fvu < 1.0


def test_sparsity_rises_over_its_warmup():
    sae = build("relu")
    x = rows().float()
    sae.initialise(x)
    quarter, whole = (sae.loss(x, Phase(sparsity=s)) for s in (0.25, 1.0))
    l1 = whole.parts["l1"] * sae.cfg.l1_coefficient
    torch.testing.assert_close(whole.total - quarter.total, 0.75 * l1, rtol=1e-4, atol=1e-5)
    assert math.isclose(quarter.fvu.item(), whole.fvu.item())
