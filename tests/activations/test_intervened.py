"""Edits through a dictionary in whole models: caches, batches, padding and conditions never met change nothing."""

import pytest
import torch
from test_generation import HOOK, PROMPTS

from activations.generation import generate_batch, stream
from activations.lm import LanguageModel
from activations.reading import left_padded
from sae import TopK, TopKConfig
from sae.edits import OPERATIONS, WHEN, InterventionConfig
from sae.intervene import Intervention


@pytest.fixture(scope="module")
def lm(any_lm: LanguageModel) -> LanguageModel:
    """A real one too."""
    return any_lm


@pytest.fixture(scope="module")
def sae(lm: LanguageModel) -> TopK:
    """Of what the model does on the prompts, and so full of latents that fire there."""
    hook = lm.hook_point(HOOK)
    x = torch.cat([lm.capture(torch.tensor([ids]), [hook])[HOOK][0] for ids in PROMPTS]).float().clone()
    sae = TopK(TopKConfig(d_in=lm.d_model, d_sae=96, k=4))
    sae.initialise(x, torch.Generator().manual_seed(0))
    return sae


@pytest.fixture(scope="module")
def often(lm: LanguageModel, sae: TopK) -> int:
    """A latent that fires on some tokens of the first prompt and not on all."""
    x = lm.capture(torch.tensor([PROMPTS[0]]), [lm.hook_point(HOOK)])[HOOK][0].float()
    rate = (sae.encode(x).dense() > 0).float().mean(0)
    return int((rate - 0.3).abs().argmin())


def config(op: str, latent: int, when: str, value: float = 6.0, **settings: object) -> InterventionConfig:
    values = (value,) if OPERATIONS[op].takes_value else ()
    return InterventionConfig(latents=(latent,), op=op, values=values, when=when, **settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("op", OPERATIONS)
def test_with_a_cache_as_without(lm: LanguageModel, sae: TopK, often: int, op: str, when: str):
    found = []
    for cached in (True, False):
        running = Intervention(sae, config(op, often, when)).begin()
        with lm.splice(lm.hook_point(HOOK), running) as splice:
            found.append(list(stream(lm, PROMPTS[0], 8, 0.0, 0, cached=cached)))
        assert splice.n_calls == len(running.trace.altered)
        # Every position that may be is seen, and in a cached generation once.
        if running.trace.altered[-1].shape[1] == 1:
            seen = sum(int(each.sum()) for each in running.trace.touchable)
            assert seen == len(PROMPTS[0]) - 1 + splice.n_calls - 1
    assert found[0] == found[1]


@pytest.mark.parametrize("when", WHEN)
def test_a_batch_is_each_alone(lm: LanguageModel, sae: TopK, often: int, when: str):
    hook, cfg = lm.hook_point(HOOK), config("clamp", often, when)
    alone = []
    for ids in PROMPTS:
        with lm.splice(hook, Intervention(sae, cfg).begin()):
            alone.append(lm.generate(ids, 8, 0.0, 0))
    with lm.splice(hook, Intervention(sae, cfg).begin()):
        assert generate_batch(lm, PROMPTS, 8, 0.0, [0, 0, 0]) == alone


@pytest.mark.parametrize("when", WHEN)
def test_padding_meets_no_condition_and_is_not_changed(
    lm: LanguageModel, sae: TopK, often: int, when: str, rounding: float
):
    """Padding is a token on which latents fire, too."""
    for fill in (0, 3, 41):
        tokens, real = left_padded([list(ids) for ids in PROMPTS], fill)
        running = Intervention(sae, config("add", often, when)).begin()
        with lm.splice(lm.hook_point(HOOK), running):
            logits = lm.logits(tokens, real)
        assert not (running.trace.altered[0] & ~real).any()
        for i, ids in enumerate(PROMPTS):
            alone = Intervention(sae, config("add", often, when)).begin()
            with lm.splice(lm.hook_point(HOOK), alone):
                expected = lm.logits(torch.tensor([ids]))[0]
            assert torch.equal(running.trace.altered[0][i, -len(ids) :], alone.trace.altered[0][0])
            torch.testing.assert_close(logits[i, -len(ids) :], expected, atol=5 * rounding, rtol=1e-4)


def test_logits_of_texts_on_which_nothing_fires_are_the_clean_ones_bit_for_bit(
    lm: LanguageModel, sae: TopK, often: int
):
    tokens = torch.tensor([PROMPTS[0]])
    clean = lm.logits(tokens)
    with lm.splice(lm.hook_point(HOOK), lambda x, *_: x):
        spliced = lm.logits(tokens)
    assert torch.equal(spliced, clean)
    for when in ("input", "token"):
        for decode in ("delta", "full"):
            cfg = config("clamp", often, when, above=(1e6,), decode=decode)
            with lm.splice(lm.hook_point(HOOK), Intervention(sae, cfg).begin()):
                assert torch.equal(lm.logits(tokens), clean)


def test_of_more_positions_more_are_altered(lm: LanguageModel, sae: TopK, often: int):
    altered = {}
    for when in WHEN:
        running = Intervention(sae, config("clamp", often, when)).begin()
        with lm.splice(lm.hook_point(HOOK), running):
            lm.logits(torch.tensor([PROMPTS[0]]))
        altered[when] = running.trace.altered[0]
    assert not (altered["token"] & ~altered["input"]).any()
    assert not (altered["input"] & ~altered["always"]).any()
    assert 0 < altered["token"].sum() < altered["always"].sum()


@pytest.mark.parametrize("cfg", [("add", 0.0), ("scale", 1.0)])
@pytest.mark.parametrize("when", WHEN)
def test_what_changes_nothing_leaves_all_logits_as_they_are(
    lm: LanguageModel, sae: TopK, often: int, cfg: tuple[str, float], when: str
):
    tokens = torch.tensor([PROMPTS[0]])
    clean = lm.logits(tokens)
    with lm.splice(lm.hook_point(HOOK), Intervention(sae, config(cfg[0], often, when, cfg[1])).begin()):
        assert torch.equal(lm.logits(tokens), clean)


@pytest.mark.parametrize("op", ["ablate", "project_out"])
def test_twice_is_once(lm: LanguageModel, sae: TopK, often: int, op: str, rounding: float):
    tokens, edit = torch.tensor([PROMPTS[0]]), config(op, often, "always")
    clean, logits = lm.logits(tokens), []
    for several in ([edit], [edit, edit]):
        with lm.splice(lm.hook_point(HOOK), Intervention(sae, *several).begin()):
            logits.append(lm.logits(tokens))
    torch.testing.assert_close(logits[1], logits[0], atol=5 * rounding, rtol=1e-4)
    assert not torch.allclose(logits[0], clean, atol=10 * rounding)


@pytest.mark.parametrize("site", ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "attn.hook_z"])
def test_every_hook_point_that_a_dictionary_reads_can_be_edited(lm: LanguageModel, site: str):
    hook, tokens = lm.hook_point(f"blocks.1.{site}"), torch.tensor([PROMPTS[0]])
    x = lm.capture(tokens, [hook])[hook.name].flatten(2)[0].float().clone()
    sae = TopK(TopKConfig(d_in=x.shape[1], d_sae=64, k=3))
    sae.initialise(x, torch.Generator().manual_seed(0))
    clean = lm.logits(tokens)
    running = Intervention(sae, config("add", 0, "always", 5 * float(x.norm(dim=1).mean()))).begin()
    with lm.splice(hook, lambda h, *where: running(h.flatten(2), *where).view_as(h)) as splice:
        assert not torch.allclose(lm.logits(tokens), clean, atol=1e-3)
    assert splice.n_positions == running.trace.n_altered == len(PROMPTS[0]) - 1
    assert torch.equal(lm.logits(tokens), clean)
