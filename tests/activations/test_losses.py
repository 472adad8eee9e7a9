"""What an edit costs, token by token: what is compared, what is left alone, and float64 oracles for both losses."""

import math

import numpy as np
import pytest
import torch

from activations.encode import encoded
from activations.lm import LanguageModel
from activations.losses import TokenLosses, distribution, token_losses_under
from activations.sequences import TokenSequence, sequences
from activations.split import Split
from activations.text import TextConfig, read_sources
from activations.tiny import TinyLM
from store.shards import TOKEN_CLASSES


@pytest.fixture
def lm() -> TinyLM:
    return TinyLM()


def losses_of(lm: TinyLM, edits: dict, sink_norm: float = math.inf, mode: str = "sequential", **kwargs) -> TokenLosses:
    hook_point = lm.hook_point("blocks.0.hook_resid_post")
    return token_losses_under(lm, sequences_of(lm, mode), hook_point, edits, sink_norm, **kwargs)


def sequences_of(lm: TinyLM, mode: str = "sequential") -> list[TokenSequence]:
    cfg = TextConfig(corpus="stories", mode=mode)
    documents = list(Split(cfg.heldout, 0).numbered(encoded(lm.tokenizer, read_sources(cfg), cfg)))
    return list(sequences(documents, cfg, 48, lm.tokenizer.bos_id))[:40]


def oracle(lm: LanguageModel, sequence: TokenSequence, edit=None) -> torch.Tensor:
    """Log-probabilities of every vocabulary entry at every position but the last, in float64."""
    tokens = torch.from_numpy(sequence.ids.astype("int64"))[None]
    if edit is None:
        return lm.logits(tokens).double().log_softmax(-1)[0, :-1]
    hook_point = lm.hook_point("blocks.0.hook_resid_post")
    with lm.hooked(hook_point, lambda x: torch.cat([x[:, :1], edit(x[:, 1:])], dim=1)):
        return lm.logits(tokens).double().log_softmax(-1)[0, :-1]


def test_both_losses_equal_a_float64_oracle_run_one_sequence_at_a_time(lm: TinyLM):
    def halve(x):
        return x / 2

    found = losses_of(lm, {"halved": halve})
    clean, edited, kl = [], [], []
    for sequence in sequences_of(lm):
        p, q = oracle(lm, sequence), oracle(lm, sequence, halve)
        following = torch.from_numpy(sequence.ids[1:].astype("int64"))[:, None]
        clean.append(-p.gather(1, following))
        edited.append(-q.gather(1, following))
        kl.append((p.exp() * (p - q)).sum(1))
    assert found.clean.mean() == pytest.approx(torch.cat(clean).mean().item(), rel=1e-6)
    assert found.edited["halved"].mean() == pytest.approx(torch.cat(edited).mean().item(), rel=1e-6)
    assert found.kl["halved"].mean() == pytest.approx(torch.cat(kl).mean().item(), rel=1e-5)
    assert len(found) == sum(len(sequence) - 1 for sequence in sequences_of(lm))


@pytest.mark.parametrize("scale", [1e-4, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("shift", [0.0, 300.0], ids=["centred", "shifted"])
def test_divergence_and_cross_entropy_equal_float64_on_adversarial_logits(scale: float, shift: float):
    """Near and far distributions, peaked and flat ones, and offsets that all logits share."""
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(300, 5000, generator=generator) * torch.logspace(-2, 1.5, 300)[:, None]
    q = (p + scale * torch.randn(300, 5000, generator=generator) + shift).float()
    target = torch.randint(0, 5000, (300,), generator=generator)
    log_p, log_q = p.double().log_softmax(1), q.double().log_softmax(1)
    kl = (log_p.exp() * (log_p - log_q)).sum(1)
    found = distribution(p).kl_to(distribution(q))
    assert found.mean().item() == pytest.approx(kl.mean().item(), rel=1e-6, abs=1e-9)
    cross_entropy = -log_q.gather(1, target[:, None]).squeeze(1)
    torch.testing.assert_close(distribution(q).cross_entropy(target), cross_entropy, rtol=1e-6, atol=1e-9)


def test_the_identity_costs_nothing_and_noise_does(lm: TinyLM):
    found = losses_of(lm, {"identity": lambda x: x, "zero": torch.zeros_like})
    assert np.array_equal(found.edited["identity"], found.clean)
    assert np.array_equal(found.kl["identity"], np.zeros(len(found)))
    assert (found.kl["zero"] > -1e-6).all()
    assert found.kl["zero"].mean() > 0.001


def test_batch_size_does_not_matter(lm: TinyLM):
    one, many = (losses_of(lm, {"zero": torch.zeros_like}, batch_tokens=b) for b in (48, 768))
    assert one.edited["zero"].mean() == pytest.approx(many.edited["zero"].mean(), abs=1e-5)
    assert one.kl["zero"].mean() == pytest.approx(many.kl["zero"].mean(), abs=1e-5)


def test_only_the_classes_asked_for_are_edited_and_first_positions_never(lm: TinyLM):
    found = losses_of(lm, {"zero": torch.zeros_like}, sink_norm=0.0)
    assert not found.is_edited.any()
    assert np.array_equal(found.edited["zero"], found.clean)
    assert set(found.token_class) == {TOKEN_CLASSES["sink"]}
    asked = losses_of(lm, {"zero": torch.zeros_like}, sink_norm=0.0, classes=("sink",))
    text = sequences_of(lm)
    assert asked.is_edited.sum() == sum(len(sequence) - 2 for sequence in text)


def test_predictions_across_documents_are_left_out(lm: TinyLM):
    """In packed text the first token of the next document could not be known."""
    text = sequences_of(lm, "pack")
    found = losses_of(lm, {}, mode="pack")
    within = sum(int((sequence.doc_ids[1:] == sequence.doc_ids[:-1]).sum()) for sequence in text)
    assert any(len(set(sequence.doc_ids)) > 1 for sequence in text)
    assert len(found) == within < sum(len(sequence) - 1 for sequence in text)
    assert set(found.doc_id) <= {int(doc_id) for sequence in text for doc_id in sequence.doc_ids}


def test_no_text_is_no_prediction(lm: TinyLM):
    found = token_losses_under(lm, [], lm.hook_point("blocks.0.hook_resid_post"), {"zero": torch.zeros_like}, 1.0)
    assert len(found) == len(found.kl["zero"]) == 0
