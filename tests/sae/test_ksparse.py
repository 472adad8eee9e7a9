"""TopK and BatchTopK: what they keep, and that a threshold at inference stands for the batch in training."""

import pytest
import torch
from variants import CASES, D_IN, D_SAE, batch, build, moved, rows, targets

from sae import BatchTopK, BatchTopKConfig, JumpReLU, Phase, TopK, TopKConfig
from sae.train import TrainConfig, train

torch.set_num_threads(1)


def low_rank(n: int, seed: int) -> torch.Tensor:
    """Rows near a few directions, some with more of them than others."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(20, D_IN, generator=torch.Generator().manual_seed(99))
    active = torch.rand(n, 20, generator=generator) < torch.rand(n, 1, generator=generator) * 0.4
    return (active * (0.5 + torch.rand(n, 20, generator=generator))) @ basis


@pytest.fixture(scope="module")
def trained() -> BatchTopK:
    sae = BatchTopK(BatchTopKConfig(d_in=D_IN, d_sae=D_SAE, k=4))
    for _ in train(sae, (low_rank(256, n) for n in range(400)), TrainConfig(n_steps=400, lr=3e-3, init_rows=512)):
        pass
    return sae


def test_topk_keeps_each_rows_largest():
    sae = moved("topk")
    x = rows()
    wanted = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc).topk(4, dim=1).indices.sort(dim=1).values
    assert torch.equal(sae.encode(x).indices.view(len(x), 4).sort(dim=1).values, wanted)


def test_batch_topk_keeps_k_times_rows_in_training():
    sae = moved("batch_topk")
    latents = sae.loss(rows(), Phase()).latents
    assert latents.active.sum() == 4 * len(rows())
    counts = latents.pattern.offsets.diff()
    assert counts.min() < counts.max()


def test_threshold_inference_equals_training_selection_in_expectation(trained):
    """Over fresh rows the threshold keeps as many latents as the batch did, and the same ones."""
    x = low_rank(20_000, 1_000_000)
    at_inference = trained.encode(x)
    assert at_inference.l0().item() == pytest.approx(4.0, rel=0.03)
    in_training = trained.loss(x, Phase()).latents
    both = (at_inference.dense() > 0) & (in_training.dense() > 0)
    assert both.sum() / in_training.active.sum() > 0.97


@pytest.mark.parametrize("case", [case for case in CASES if getattr(build(case).cfg, "pool", "row") == "batch"])
def test_every_variant_that_shares_a_batchs_budget_keeps_as_many_by_its_threshold(case):
    """A threshold taken from values that were quantised is none for pre-activations."""
    sae = build(case)
    data = [batch(sae, 512, seed=n) for n in range(150)]
    list(train(sae, data, TrainConfig(n_steps=150, lr=3e-3, init_rows=512)))
    latents = sae.float().encode(rows(4000, seed=999).float())
    assert len(latents.values) / latents.n_rows == pytest.approx(sae.cfg.k, rel=0.05)


@pytest.mark.parametrize("case", ["discrete binary batch", "transcoder unit batch", "crosscoder"])
def test_what_is_more_than_an_encoder_and_a_decoder_is_no_jumprelu(case):
    sae = moved(case)
    sae.observe(sae.loss(rows(), Phase(), targets(sae)))
    with pytest.raises(ValueError, match="no JumpReLU is the same"):
        sae.as_jumprelu()


def test_a_batch_without_a_positive_pre_activation_leaves_the_threshold_alone():
    sae = moved("batch_topk")
    sae.observe(sae.loss(rows()))
    before = sae.threshold.clone()
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
    sae.observe(sae.loss(rows()))
    assert sae.threshold == before


def test_batch_topk_becomes_the_jumprelu_that_it_is_at_inference(trained):
    x = low_rank(500, 7)
    jump = trained.as_jumprelu()
    assert type(jump) is JumpReLU
    torch.testing.assert_close(jump(x).x_hat, trained(x).x_hat)
    assert torch.equal(jump.encode(x).indices, trained.encode(x).indices)


def test_free_decoder_norms_become_thresholds_of_their_own():
    sae = moved("batch_topk free")
    sae.observe(sae.loss(rows(seed=1)))
    jump = sae.as_jumprelu()
    torch.testing.assert_close(jump(rows()).x_hat, sae(rows()).x_hat)
    assert jump.threshold.std() > 0


def test_before_any_batch_there_is_no_threshold_to_become_a_jumprelu():
    with pytest.raises(ValueError, match="threshold"):
        build("batch_topk").as_jumprelu()


def test_row_wise_topk_is_no_jumprelu():
    with pytest.raises(ValueError, match="row"):
        build("topk").as_jumprelu()


def test_multi_topk_keeps_an_sae_useful_at_other_k():
    """Gao et al. 2024, section 5.3: at four times k it is better than an SAE trained at k alone."""

    def fvu_at_many(multi: float) -> float:
        sae = TopK(TopKConfig(d_in=D_IN, d_sae=D_SAE, k=2, multi_topk=multi))
        for _ in train(sae, (low_rank(256, n) for n in range(300)), TrainConfig(n_steps=300, lr=3e-3, init_rows=512)):
            pass
        many = TopK(TopKConfig(d_in=D_IN, d_sae=D_SAE, k=8))
        many.load_state_dict(sae.state_dict())
        return many.loss(low_rank(4096, 5000)).fvu.item()

    assert fvu_at_many(0.125) < 0.9 * fvu_at_many(0.0)


def test_annealing_goes_from_many_latents_to_few():
    sae = build("topk")
    cfg = TrainConfig(n_steps=10, k_start=12, k_anneal=0.5, init_rows=64)
    l0 = [round(step.l0.item()) for step in train(sae, (rows(seed=n).float() for n in range(10)), cfg)]
    assert l0[0] > l0[2] > l0[4] > 4
    assert l0[5:] == [4] * 5


@pytest.mark.parametrize("case", ["relu", "jumprelu"])
def test_annealing_what_has_no_k_is_refused(case):
    with pytest.raises(ValueError, match="no k to anneal"):
        train(build(case), [], TrainConfig(n_steps=3, k_start=9))


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": D_SAE + 1}, {"multi_topk": -1.0}, {"multi_topk": 0.1, "k": 11}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="|".join(wrong)):
        TopKConfig(d_in=D_IN, d_sae=D_SAE, **wrong)
