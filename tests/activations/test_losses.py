"""Cross-entropy under edits: what is averaged, what is left alone."""

import math

import pytest
import torch

from activations.encode import encoded
from activations.losses import edited_losses
from activations.sequences import TokenSequence, sequences
from activations.split import Split
from activations.text import TextConfig, read_sources
from activations.tiny import TinyLM


@pytest.fixture
def lm() -> TinyLM:
    return TinyLM()


def losses_of(lm: TinyLM, edits: dict, sink_norm: float = math.inf, batch_tokens: int = 192):
    text = sequences_of(lm)
    hook_point = lm.hook_point("blocks.0.hook_resid_post")
    return text, edited_losses(lm, text, hook_point, edits, sink_norm, batch_tokens)


def sequences_of(lm: TinyLM) -> list[TokenSequence]:
    cfg = TextConfig(corpus="stories")
    documents = list(Split(cfg.heldout, 0).numbered(encoded(lm.tokenizer, read_sources(cfg), cfg)))
    return list(sequences(documents, cfg, 48, lm.tokenizer.bos_id))[:40]


def test_clean_loss_is_the_mean_over_all_predicted_tokens(lm: TinyLM):
    text, found = losses_of(lm, {})
    total, n = 0.0, 0
    for sequence in text:
        tokens = torch.from_numpy(sequence.ids.astype("int64"))[None]
        log_p = lm.logits(tokens).double().log_softmax(-1)[0, :-1]
        total -= log_p.gather(1, tokens[0, 1:, None]).sum().item()
        n += len(sequence) - 1
    assert found.n_tokens == n
    assert found.clean == pytest.approx(total / n, abs=1e-5)


def test_the_identity_costs_nothing_and_noise_does(lm: TinyLM):
    _, found = losses_of(lm, {"identity": lambda x: x, "zero": torch.zeros_like})
    assert found.edited["identity"] == found.clean
    assert found.edited["zero"] != found.clean


def test_batch_size_does_not_matter(lm: TinyLM):
    one, many = (losses_of(lm, {"zero": torch.zeros_like}, batch_tokens=b)[1] for b in (48, 768))
    assert one.edited["zero"] == pytest.approx(many.edited["zero"], abs=1e-5)


def test_sinks_are_never_edited(lm: TinyLM):
    text, found = losses_of(lm, {"zero": torch.zeros_like}, sink_norm=0.0)
    assert found.n_edited == 0
    assert found.edited["zero"] == found.clean
    _, all_edited = losses_of(lm, {"zero": torch.zeros_like})
    assert all_edited.n_edited == sum(map(len, text)) - len(text)
