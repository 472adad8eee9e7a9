"""Every loss of every variant against the same loss written dense, in float64: value and all gradients."""

import pytest
import torch
from variants import CASES, D_SAE, DENSE, dense_loss, moved, rows, targets

from sae import VARIANTS, EncoderSAE, Phase, sparse

torch.set_num_threads(1)

TRAINED = {name for name, cls in VARIANTS.items() if issubclass(cls, EncoderSAE)}


def phase(n_dead: int = 0, sparsity: float = 0.7) -> Phase:
    dead = torch.arange(n_dead) if n_dead else None
    return Phase(dead=dead, sparsity=sparsity, generator=torch.Generator().manual_seed(5))


def test_every_trained_variant_has_a_case_and_a_dense_reference():
    assert {case.split()[0] for case in CASES} == set(DENSE) == TRAINED


@pytest.mark.parametrize("n_dead", [0, 1, 10, 35], ids=lambda n: f"{n}_dead")
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_dense_autograd(case, n_dead):
    sae = moved(case)
    x, target = rows(), targets(sae)
    reference = dense_loss(case, sae, x, phase(n_dead), target)
    loss = sae.loss(x, phase(n_dead), target).total
    torch.testing.assert_close(loss, reference, rtol=1e-11, atol=0)
    named = {name: p for name, p in sae.named_parameters() if p.requires_grad}
    ours = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    theirs = torch.autograd.grad(reference, list(named.values()), allow_unused=True)
    for name, found, wanted in zip(named, ours, theirs, strict=True):
        assert wanted is not None, name
        assert wanted.abs().max() > 0, name
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-13, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("case", CASES)
def test_gradient_of_the_rows_equals_dense_autograd(case):
    sae = moved(case)
    x, target = rows().requires_grad_(), targets(sae)
    (found,) = torch.autograd.grad(sae.loss(x, phase(), target).total, x)
    (wanted,) = torch.autograd.grad(dense_loss(case, sae, x, phase(), target), x)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("case", ["transcoder", "skip_transcoder"])
def test_gradient_of_the_targets_equals_dense_autograd(case):
    sae = moved(case)
    target = targets(sae).requires_grad_()
    (found,) = torch.autograd.grad(sae.loss(rows(), phase(), target).total, target)
    (wanted,) = torch.autograd.grad(dense_loss(case, sae, rows(), phase(), target), target)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("dense_above", [0.0, 1.0])
@pytest.mark.parametrize("case", ["topk", "batch_topk", "relu", "jumprelu", "matryoshka"])
def test_sparse_and_dense_products_give_the_same_gradients(case, dense_above, monkeypatch):
    """Whichever products are the faster ones, the gradients are the same."""
    monkeypatch.setattr(sparse, "DENSE_ABOVE", dense_above)
    sae = moved(case)
    x = rows()
    reference = dense_loss(case, sae, x, phase(), None)
    loss = sae.loss(x, phase()).total
    named = [p for p in sae.parameters() if p.requires_grad]
    for found, wanted in zip(torch.autograd.grad(loss, named), torch.autograd.grad(reference, named), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("block", [1, 3 * D_SAE, 10**9])
@pytest.mark.parametrize("case", ["topk", "batch_topk", "relu", "jumprelu"])
def test_gradients_do_not_depend_on_how_rows_are_cut_into_blocks(case, block, monkeypatch):
    sae = moved(case)
    wanted = torch.autograd.grad(sae.loss(rows(), phase()).total, [sae.W_enc, sae.W_dec])
    monkeypatch.setattr("sae.encoder.BLOCK_ENTRIES", block)
    found = torch.autograd.grad(sae.loss(rows(), phase()).total, [sae.W_enc, sae.W_dec])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-14)
