"""Every language model keeps the same promises: the tiny one and TransformerLens bridges over three architectures."""

from pathlib import Path

import pytest
import torch

from activations.bridge import BridgeLM
from activations.lm import LanguageModel
from activations.losses import distribution
from activations.models import find_model, load_model
from activations.tiny import TinyLM
from store.errors import UsageError

IDS = [0, *range(40, 58)]
SITES = ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.tensor([IDS, IDS[::-1]])


def test_capture_is_what_the_forward_pass_computes(lm: LanguageModel, tokens: torch.Tensor):
    names = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "blocks.1.attn.hook_z"]
    captured = lm.capture(tokens, [lm.hook_point(name) for name in names])
    assert torch.equal(captured[names[0]], captured[names[1]])
    assert captured[names[2]].shape == (2, len(IDS), 4, lm.d_model // 4)
    seen: list[torch.Tensor] = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return x

    with lm.hooked(lm.hook_point(names[0]), look):
        lm.logits(tokens)
    # A pass that stops early equals the whole one.
    assert torch.allclose(seen[0], captured[names[0]], atol=1e-5)


@pytest.mark.parametrize("site", SITES)
def test_capture_is_what_plain_hooks_see_in_the_plain_model(
    site: str, tmp_path_factory: pytest.TempPathFactory, lm: LanguageModel, tokens: torch.Tensor
):
    """The oracle is the model as transformers loads it, with torch's own hooks and no TransformerLens."""
    if not isinstance(lm, BridgeLM):
        pytest.skip("the tiny model is its own oracle")
    from transformers import AutoModelForCausalLM

    name = f"blocks.1.{site}"
    captured = lm.capture(tokens, [lm.hook_point(name)])[name]
    expected = _plainly(AutoModelForCausalLM.from_pretrained(lm.name).eval(), site, tokens)
    assert torch.allclose(captured.flatten(2), expected, atol=1e-5)


BLOCKS = {
    "LlamaForCausalLM": "model.layers.1",
    "GPT2LMHeadModel": "transformer.h.1",
    "GPTNeoXForCausalLM": "gpt_neox.layers.1",
}
ATTENTION = {"LlamaForCausalLM": "self_attn", "GPT2LMHeadModel": "attn", "GPTNeoXForCausalLM": "attention"}
OUT = {"LlamaForCausalLM": "o_proj", "GPT2LMHeadModel": "c_proj", "GPTNeoXForCausalLM": "dense"}


@torch.inference_mode()
def _plainly(model: torch.nn.Module, site: str, tokens: torch.Tensor) -> torch.Tensor:
    kind = type(model).__name__
    block = model.get_submodule(BLOCKS[kind])
    attention = block.get_submodule(ATTENTION[kind])
    place, is_input = {
        "hook_resid_pre": (block, True),
        "hook_resid_post": (block, False),
        "hook_attn_out": (attention, False),
        "hook_mlp_out": (block.get_submodule("mlp"), False),
        "attn.hook_z": (attention.get_submodule(OUT[kind]), True),
    }[site]
    seen: list[torch.Tensor] = []

    def look(module: torch.nn.Module, args: tuple, kwargs: dict, out: object) -> None:
        x = (args[0] if args else kwargs["hidden_states"]) if is_input else out
        seen.append((x[0] if isinstance(x, tuple) else x).clone())

    place.register_forward_hook(look, with_kwargs=True)
    model(tokens)
    return seen[0]


BRIDGED = "only a bridge has another way"


class TestNativeForward:
    """The model's own modules in place of the bridge's step-by-step ones, wherever that is the same."""

    def test_it_is_used_and_equals_the_bridge(self, lm: LanguageModel, tokens: torch.Tensor):
        if not isinstance(lm, BridgeLM):
            pytest.skip(BRIDGED)
        hooks = [lm.hook_point(f"blocks.{layer}.{site}") for layer in (0, 2) for site in SITES]
        fast = lm.capture(tokens, hooks)
        assert lm._native[tuple(hook.name for hook in hooks)], "the bridge's own, slow modules ran"
        slow = lm._capture(tokens, hooks)
        for name, x in slow.items():
            assert torch.allclose(fast[name], x, atol=1e-5), name

    def test_hooks_inside_attention_keep_the_bridges_modules_there(self, lm: LanguageModel, tokens: torch.Tensor):
        if not isinstance(lm, BridgeLM):
            pytest.skip(BRIDGED)
        inner, outer = "blocks.1.ln1.hook_normalized", "blocks.2.hook_resid_post"
        found = lm.capture(tokens, [lm.hook_point(inner), lm.hook_point(outer)])
        expected = lm._capture(tokens, [lm.hook_point(inner)])[inner]
        assert torch.allclose(found[inner], expected, atol=1e-5)
        lm.capture(tokens, [lm.hook_point(outer)])
        assert len(lm._native[inner, outer]) == len(lm._native[(outer,)]) - 1

    def test_a_place_without_a_vector_per_token_is_refused(self, lm: LanguageModel):
        if not isinstance(lm, BridgeLM):
            pytest.skip("only a bridge has such places")
        with pytest.raises(UsageError, match="holds no vector per token"):
            lm.hook_point("blocks.1.attn.hook_pattern")

    def test_a_model_whose_own_modules_differ_runs_through_the_bridge(
        self, lm: LanguageModel, tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
    ):
        if not isinstance(lm, BridgeLM):
            pytest.skip(BRIDGED)
        hook = lm.hook_point("blocks.2.hook_resid_pre")
        expected = lm._capture(tokens, [hook])[hook.name]
        attention = lm._bridge.blocks[0].attn.original_component
        own = type(attention).forward
        monkeypatch.setattr(
            type(attention), "forward", lambda *a, **k: tuple(x if x is None else 2 * x for x in own(*a, **k))
        )
        found = lm.capture(tokens, [hook])[hook.name]
        assert lm._native.pop((hook.name,)) == []
        assert torch.equal(found, expected)

    def test_a_caller_with_two_tokens_does_not_weaken_the_check(
        self, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ):
        """A harvest first asks how wide its vectors are, with two equal tokens: attention over those hides much."""
        if not isinstance(lm, BridgeLM):
            pytest.skip(BRIDGED)
        hook = lm.hook_point("blocks.2.hook_resid_pre")
        lm._native.pop((hook.name,), None)
        attention = lm._bridge.blocks[0].attn.original_component
        own = type(attention).forward

        def wrong_late(*args, **kwargs):
            out, *rest = own(*args, **kwargs)
            return (torch.cat([out[:, :2], 2 * out[:, 2:]], dim=1), *rest)

        monkeypatch.setattr(type(attention), "forward", wrong_late)
        lm.capture(torch.zeros(1, 2, dtype=torch.long), [hook])
        assert lm._native.pop((hook.name,)) == []

    def test_nothing_is_left_behind(self, lm: LanguageModel, tokens: torch.Tensor):
        if not isinstance(lm, BridgeLM):
            pytest.skip(BRIDGED)
        config = lm._bridge.original_model.config
        before = config._attn_implementation
        lm.capture(tokens, [lm.hook_point("blocks.1.hook_resid_post")])
        assert config._attn_implementation == before
        assert not any("forward" in module.__dict__ for module in lm._bridge.modules())


def test_padding_on_the_right_changes_nothing(lm: LanguageModel, tokens: torch.Tensor):
    hook = lm.hook_point("blocks.1.hook_resid_post")
    padded = torch.cat([tokens, torch.zeros(2, 5, dtype=torch.long)], dim=1)
    assert torch.allclose(
        lm.capture(padded, [hook])[hook.name][:, : len(IDS)], lm.capture(tokens, [hook])[hook.name], atol=1e-5
    )


def test_an_identity_edit_changes_no_logit_by_one_bit(lm: LanguageModel, tokens: torch.Tensor):
    clean = lm.logits(tokens)
    with lm.splice(lm.hook_point("blocks.1.hook_resid_post"), lambda x, *_: x) as splice:
        edited = lm.logits(tokens)
    assert torch.equal(clean, edited)
    assert (splice.n_calls, splice.n_positions) == (1, 2 * (len(IDS) - 1))


def test_edits_reach_the_logits_and_are_gone_afterwards_even_after_an_error(lm: LanguageModel, tokens: torch.Tensor):
    clean, hook = lm.logits(tokens), lm.hook_point("blocks.0.hook_resid_post")
    # Not a constant: LayerNorm would take it out again.
    with lm.splice(hook, lambda x, *_: x + torch.linspace(-1, 1, lm.d_model)):
        assert not torch.allclose(lm.logits(tokens), clean, atol=1e-3)

    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("in the hook")

    with pytest.raises(RuntimeError, match="in the hook"), lm.splice(hook, fail):
        lm.logits(tokens)
    assert torch.equal(lm.logits(tokens), clean)


@pytest.mark.parametrize("name", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"])
def test_logits_from_a_place_are_those_with_the_activations_there_replaced(
    lm: LanguageModel, tokens: torch.Tensor, name: str
):
    hook = lm.hook_point(name)
    x = torch.randn_like(lm.capture(tokens, [hook])[name])
    with lm.hooked(hook, lambda _: x):
        expected = lm.logits(tokens)
    torch.testing.assert_close(lm.logits_from(tokens, hook, x), expected, rtol=1e-4, atol=1e-4)
    clean = lm.logits(tokens)
    torch.testing.assert_close(lm.logits_from(tokens, hook, lm.capture(tokens, [hook])[name]), clean)


def test_activations_and_logits_of_one_pass_are_those_of_two(lm: LanguageModel, tokens: torch.Tensor):
    for name in ("blocks.0.hook_resid_post", "blocks.1.attn.hook_z"):
        hook = lm.hook_point(name)
        x, logits = lm.capture_with_logits(tokens, hook)
        torch.testing.assert_close(x, lm.capture(tokens, [hook])[name])
        torch.testing.assert_close(logits, lm.logits(tokens), rtol=1e-4, atol=1e-4)


def test_blocks_before_the_place_are_not_computed(lm: LanguageModel, tokens: torch.Tensor):
    if isinstance(lm, TinyLM):
        pytest.skip("runs every pass whole")
    hook, first = lm.hook_point("blocks.1.hook_resid_post"), lm.hook_point("blocks.0.hook_resid_post")
    x = lm.capture(tokens, [hook])[hook.name]
    lm.logits_from(tokens, hook, x)  # the pass that checks it is a whole one
    assert lm._resumable[hook.name] is not None
    seen: list[torch.Tensor] = []
    with lm._bridge.hooks(fwd_hooks=[(first.name, lambda y, hook: seen.append(y))]):
        lm.logits_from(tokens, hook, x)
    assert not seen
    torch.testing.assert_close(lm.capture(tokens, [hook])[hook.name], x)


def test_an_edit_in_place_makes_the_pass_a_whole_one(lm: LanguageModel, tokens: torch.Tensor):
    before, hook = lm.hook_point("blocks.0.hook_resid_post"), lm.hook_point("blocks.1.hook_resid_post")
    x = lm.capture(tokens, [hook])[hook.name]
    seen: list[torch.Tensor] = []
    with lm.hooked(before, lambda y: seen.append(y) or y):
        lm.logits_from(tokens, hook, x)
    assert seen


def test_the_first_position_is_kept_unless_asked(lm: LanguageModel, tokens: torch.Tensor):
    hook = lm.hook_point("blocks.0.hook_resid_post")
    with lm.splice(hook, lambda x, *_: x):
        # With an edit in place, so that both passes round in the same order.
        clean = lm.capture(tokens, [lm.hook_point("blocks.1.hook_resid_pre")])["blocks.1.hook_resid_pre"]
    for keep_first in (True, False):
        with lm.splice(hook, lambda x, *_: torch.zeros_like(x), keep_first=keep_first):
            # Read where the next block reads, after the edit.
            edited = lm.capture(tokens, [lm.hook_point("blocks.1.hook_resid_pre")])["blocks.1.hook_resid_pre"]
        assert torch.equal(edited[:, 0], clean[:, 0]) == keep_first
        assert not edited[:, 1:].any()


def test_generation_is_seeded_and_leaves_the_global_random_state(lm: LanguageModel):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = lm.generate(IDS, 8, 1.0, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert first == lm.generate(IDS, 8, 1.0, seed=1)
    assert any(first != lm.generate(IDS, 8, 1.0, seed=seed) for seed in (2, 3, 4))
    assert lm.generate(IDS, 8, 0.0, seed=1) == lm.generate(IDS, 8, 0.0, seed=2)


def test_edits_take_part_in_every_step_of_a_generation(lm: LanguageModel):
    hook = lm.hook_point("blocks.0.hook_resid_post")
    with lm.splice(hook, lambda x, *_: x) as splice:
        same = lm.generate(IDS, 6, 0.0, seed=0)
    assert same == lm.generate(IDS, 6, 0.0, seed=0)
    assert splice.n_calls == len(same) == 6
    push = 20 * torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0))
    with lm.splice(hook, lambda x, *_: x + push):
        assert lm.generate(IDS, 6, 0.0, seed=0) != same


def test_greedy_generation_is_the_arg_max_of_the_logits_under_an_edit(lm: LanguageModel):
    """The cached steps see the edited past and the edited present: the same as running it all anew."""
    hook = lm.hook_point("blocks.1.hook_resid_post")
    push = 3 * torch.randn(lm.d_model, generator=torch.Generator().manual_seed(1))
    with lm.splice(hook, lambda x, *_: x + push):
        out = lm.generate(IDS, 5, 0.0, seed=0)
    ids = list(IDS)
    for token_id in out:
        with lm.splice(hook, lambda x, *_: x + push):
            assert int(lm.logits(torch.tensor([ids]))[0, -1].argmax()) == token_id
        ids.append(token_id)


def test_unembedding_times_the_residual_is_the_logits_up_to_the_norms_scale(lm: LanguageModel, tokens: torch.Tensor):
    hook = lm.hook_point(f"blocks.{lm.n_layers - 1}.hook_resid_post")
    x, logits = lm.capture(tokens, [hook])[hook.name], lm.logits(tokens)
    effect = x @ lm.unembedding()
    assert torch.nn.functional.cosine_similarity(effect, logits, dim=-1).min() > 0.9999
    scale = (logits * effect).sum(-1) / (effect * effect).sum(-1)
    assert scale.min() > 0
    assert torch.allclose(effect * scale[..., None], logits, atol=1e-3)


def test_token_losses_are_the_next_tokens_negative_log_probabilities(lm: LanguageModel, tokens: torch.Tensor):
    logits = lm.logits(tokens)
    losses = distribution(logits[:, :-1].flatten(0, 1)).cross_entropy(tokens[:, 1:].flatten()).view(len(tokens), -1)
    expected = -logits.double().log_softmax(-1)[0, 3, tokens[0, 4]]
    assert losses.shape == (2, len(IDS) - 1)
    assert losses[0, 3].item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("name", ["blocks.9.hook_resid_post", "blocks.1.hook_resid_pots", "resid_post", ""])
def test_a_wrong_hook_point_lists_the_nearest(lm: LanguageModel, name: str):
    with pytest.raises(UsageError, match=r"the nearest are blocks\.\d") as error:
        lm.hook_point(name)
    assert "\n" not in str(error.value)


def test_unknown_models_are_refused_in_one_line(tmp_path: Path):
    for name in ("gtp2", "no/such-model", "../nope", "a b"):
        with pytest.raises(UsageError, match=f"no model '{name}'") as error:
            load_model(name)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="is for a model from the hub"):
        load_model(str(tmp_path), revision="main")
    with pytest.raises(UsageError, match="device 'warp' is not available here"):
        load_model("tiny", device="warp")
    with pytest.raises(UsageError, match="dtype 'int4' is not known"):
        load_model("tiny", dtype="int4")
    with pytest.raises(UsageError, match=r"no config\.json and safetensors"):
        load_model(str(tmp_path))
    assert find_model("tiny").weights_hash == TinyLM().weights_hash


def test_a_gguf_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MONOSEM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(UsageError, match="cannot be read as a GGUF"):
        load_model(str(tmp_path / "bad.gguf"))
    assert not list((tmp_path / "cache" / "models").glob("bad*"))
