"""Full and direct effects of a latent, on the tiny model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from activations.tiny import TinyLM
from app.workbench import Workbench
from autointerp.effects import effects
from autointerp.subject import Subject
from sae.topk import TopK, TopKConfig
from store.errors import UsageError

TEXT = "The quick brown fox jumps."
LAST = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def subject(tiny_root: Path) -> Subject:
    return Workbench.open(tiny_root)._subject


def on(hook_point: str, n_in: int = 32) -> Subject:
    """Another dictionary, that reads elsewhere."""
    torch.manual_seed(0)
    return Subject(TinyLM(), TopK(TopKConfig(d_in=n_in, d_sae=40, k=6)), hook_point, 1e6, np.ones(40))


def strongest(subject: Subject, ids: list[int], pos: int) -> int:
    with torch.no_grad():
        return int(subject.sae.encode(subject.rows(ids)).dense()[pos].argmax())


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_full_effect_is_the_model_without_the_latents_write(subject: Subject, everywhere: bool):
    ids, pos = subject.ids(TEXT), 9
    latent = strongest(subject, ids, pos)
    found = effects(subject, ids, latent, pos, everywhere=everywhere)
    tokens = torch.tensor([ids])
    with torch.no_grad():
        x = subject.rows(ids)
        values = subject.sae.encode(x).dense()[:, latent]
        assert found.activation == pytest.approx(float(values[pos]))
        kept = torch.arange(len(ids)) == pos if not everywhere else torch.arange(len(ids)) > 0
        kept &= x.norm(dim=1) <= subject.sink_norm
        changed = x - (values * kept)[:, None] * subject.sae.W_dec[latent]
        without = subject.lm.logits_from(tokens, subject.hook, changed[None])[0].double().log_softmax(-1)
        clean = subject.lm.logits(tokens)[0].double().log_softmax(-1)
    after = ids[pos + 1]
    assert found.target == subject.lm.tokenizer.decode([after])
    assert found.clean_loss == pytest.approx(-float(clean[pos, after]), rel=1e-5)
    assert found.full.loss == pytest.approx(float(clean[pos, after] - without[pos, after]), abs=1e-5)
    kl = (clean[pos].exp() * (clean[pos] - without[pos])).sum()
    assert found.full.kl == pytest.approx(float(kl), rel=1e-3, abs=1e-7)
    assert found.n_altered == int((kept & (values != 0)).sum())
    for i in range(1, len(ids)):
        change = float(clean[i - 1, ids[i]] - without[i - 1, ids[i]])
        assert found.loss_change[i] == pytest.approx(change, abs=1e-5), i
    p, q = clean[pos].exp(), without[pos].exp()
    assert found.full.up[0].token_id == int((q - p).argmax())
    assert found.full.down[0].token_id == int((p - q).argmax())
    assert found.full.up[0].without == pytest.approx(float((q)[found.full.up[0].token_id]), rel=1e-4)


def test_the_direct_effect_is_the_write_through_norm_and_unembedding(subject: Subject):
    ids, pos, lm = subject.ids(TEXT), 9, subject.lm
    latent = strongest(subject, ids, pos)
    found = effects(subject, ids, latent, pos)
    assert isinstance(lm, TinyLM)
    last = lm.capture(torch.tensor([ids]), [lm.hook_point(LAST)])[LAST][0, pos]
    scale = torch.rsqrt(last.square().mean() + 1e-6)
    with torch.no_grad():
        write = scale * found.activation * subject.sae.W_dec[latent] * lm.gain @ lm.W_U
        clean = lm.logits(torch.tensor([ids]))[0, pos]
    after = ids[pos + 1]
    assert found.logit == pytest.approx(float(write[after] - write.mean()), rel=1e-3, abs=1e-5)
    assert found.direct is not None
    change = clean.log_softmax(0)[after] - (clean - write).log_softmax(0)[after]
    assert found.direct.loss == pytest.approx(float(change), abs=1e-4)


def test_a_small_write_of_the_last_layer_that_leaves_the_norm_has_the_same_effect_both_ways():
    subject = on(LAST)
    ids, pos = subject.ids(TEXT), 9
    latent, x = strongest(subject, ids, pos), subject.rows(ids)[pos]
    with torch.no_grad():
        row = subject.sae.W_dec[latent]
        row -= (row @ x) / (x @ x) * x
        row *= 0.01
    found = effects(subject, ids, latent, pos)
    assert found.direct is not None
    assert abs(found.full.loss) > 1e-5
    assert found.direct.loss == pytest.approx(found.full.loss, rel=0.01)


def test_a_silent_latent_does_nothing(subject: Subject):
    ids, pos = subject.ids(TEXT), 9
    with torch.no_grad():
        silent = int((subject.sae.encode(subject.rows(ids)).dense()[pos] == 0).nonzero()[0])
    found = effects(subject, ids, silent, pos)
    assert (found.full.loss, found.full.kl, found.full.up, found.n_altered) == (0.0, 0.0, (), 0)
    assert found.direct is not None
    assert (found.direct.loss, found.logit) == (0.0, 0.0)
    assert not found.loss_change[1:].any()


def test_another_next_token_can_be_chosen_and_the_last_one_has_the_likeliest(subject: Subject):
    ids = subject.ids(TEXT)
    latent = strongest(subject, ids, 9)
    assert effects(subject, ids, latent, 9, target="z").target == "z"
    end = len(ids) - 1
    likeliest = int(subject.lm.logits(torch.tensor([ids]))[0, end].argmax())
    assert effects(subject, ids, latent, end).target == subject.lm.tokenizer.decode([likeliest])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pos": 99}, "there is no token 99: choose 0 to 26"),
        ({"pos": 0}, "token 0 is the first or an attention sink"),
        ({"latent": 10**6}, "there is no latent 1000000"),
        ({"target": "two"}, "'two' is 3 tokens, and one is asked for"),
        ({"target": ""}, "'' is 0 tokens"),
    ],
)
def test_what_cannot_be_asked_is_one_line(subject: Subject, settings: dict, said: str):
    with pytest.raises(UsageError, match=said):
        effects(subject, subject.ids(TEXT), **{"latent": 0, "pos": 9, **settings})


def test_heads_write_through_their_output_weights():
    subject = on("blocks.1.attn.hook_z")
    ids, pos = subject.ids(TEXT), 9
    latent = strongest(subject, ids, pos)
    found = effects(subject, ids, latent, pos)
    assert found.direct is not None
    lm, last = subject.lm, torch.tensor([ids])
    assert isinstance(lm, TinyLM)
    x = lm.capture(last, [lm.hook_point(LAST)])[LAST][0, pos]
    with torch.no_grad():
        row = subject.sae.W_dec[latent] @ lm.blocks[1]["o"]
        write = torch.rsqrt(x.square().mean() + 1e-6) * found.activation * row * lm.gain @ lm.W_U
    assert found.logit == pytest.approx(float(write[ids[pos + 1]] - write.mean()), rel=1e-3, abs=1e-5)


def test_a_model_that_caps_its_logits_has_no_direct_effect(subject: Subject, monkeypatch: pytest.MonkeyPatch):
    plain = TinyLM.logits
    monkeypatch.setattr(TinyLM, "logits", lambda self, *args: torch.tanh(plain(self, *args)))
    found = effects(subject, subject.ids(TEXT), 0, 9)
    assert found.direct is None
    assert found.logit is None
    assert "so no part adds up" in found.no_direct
