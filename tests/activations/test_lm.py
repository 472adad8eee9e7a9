"""Every language model keeps the same promises: the tiny one and TransformerLens bridges over two architectures."""

from pathlib import Path

import pytest
import torch

from activations.bridge import BridgeLM
from activations.lm import LanguageModel, token_losses
from activations.models import find_model, load_model
from activations.tiny import TinyLM
from activations.tokenizer import ByteTokenizer
from store.errors import UsageError

IDS = [256, *b"the quick brown fox"]


def _bridge(architecture: str, folder: Path) -> LanguageModel:
    """A random instance of a real architecture; EOS is never likely, so generations have full length."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    if architecture == "llama":
        config = LlamaConfig(
            vocab_size=258, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, bos_token_id=256, eos_token_id=257, pad_token_id=None,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        torch.nn.init.normal_(model.model.norm.weight, 1.0, 0.2)
    else:
        config = GPT2Config(
            vocab_size=258, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=256, eos_token_id=257
        )
        model = GPT2LMHeadModel(config)
        torch.nn.init.normal_(model.transformer.ln_f.weight, 1.0, 0.2)
    model.save_pretrained(folder)
    # TransformerLens wants some tokenizer in the folder; ours is what the tests use.
    words = Tokenizer(WordLevel({"[UNK]": 0, "<bos>": 256, "<eos>": 257}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>", eos_token="<eos>").save_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    return BridgeLM(bridge.eval(), ByteTokenizer(), architecture, "random")


@pytest.fixture(scope="module", params=["tiny", "llama", "gpt2"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return TinyLM() if request.param == "tiny" else _bridge(request.param, tmp_path_factory.mktemp(request.param))


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


def test_padding_on_the_right_changes_nothing(lm: LanguageModel, tokens: torch.Tensor):
    hook = lm.hook_point("blocks.1.hook_resid_post")
    padded = torch.cat([tokens, torch.zeros(2, 5, dtype=torch.long)], dim=1)
    assert torch.allclose(
        lm.capture(padded, [hook])[hook.name][:, : len(IDS)], lm.capture(tokens, [hook])[hook.name], atol=1e-5
    )


def test_an_identity_edit_changes_no_logit_by_one_bit(lm: LanguageModel, tokens: torch.Tensor):
    clean = lm.logits(tokens)
    with lm.splice(lm.hook_point("blocks.1.hook_resid_post"), lambda x: x) as splice:
        edited = lm.logits(tokens)
    assert torch.equal(clean, edited)
    assert (splice.n_calls, splice.n_positions) == (1, len(IDS) - 1)


def test_edits_reach_the_logits_and_are_gone_afterwards_even_after_an_error(lm: LanguageModel, tokens: torch.Tensor):
    clean, hook = lm.logits(tokens), lm.hook_point("blocks.0.hook_resid_post")
    # Not a constant: LayerNorm would take it out again.
    with lm.splice(hook, lambda x: x + torch.linspace(-1, 1, lm.d_model)):
        assert not torch.allclose(lm.logits(tokens), clean, atol=1e-3)

    def fail(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("in the hook")

    with pytest.raises(RuntimeError, match="in the hook"), lm.splice(hook, fail):
        lm.logits(tokens)
    assert torch.equal(lm.logits(tokens), clean)


def test_the_first_position_is_kept_unless_asked(lm: LanguageModel, tokens: torch.Tensor):
    hook = lm.hook_point("blocks.0.hook_resid_post")
    clean = lm.capture(tokens, [lm.hook_point("blocks.1.hook_resid_pre")])["blocks.1.hook_resid_pre"]
    for keep_first in (True, False):
        with lm.splice(hook, torch.zeros_like, keep_first=keep_first):
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
    with lm.splice(hook, lambda x: x) as splice:
        same = lm.generate(IDS, 6, 0.0, seed=0)
    assert same == lm.generate(IDS, 6, 0.0, seed=0)
    assert splice.n_calls == len(same) == 6
    push = 20 * torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0))
    with lm.splice(hook, lambda x: x + push):
        assert lm.generate(IDS, 6, 0.0, seed=0) != same


def test_greedy_generation_is_the_arg_max_of_the_logits_under_an_edit(lm: LanguageModel):
    """The cached steps see the edited past and the edited present: the same as running it all anew."""
    hook = lm.hook_point("blocks.1.hook_resid_post")
    push = 3 * torch.randn(lm.d_model, generator=torch.Generator().manual_seed(1))
    with lm.splice(hook, lambda x: x + push):
        out = lm.generate(IDS, 5, 0.0, seed=0)
    ids = list(IDS)
    for token_id in out:
        with lm.splice(hook, lambda x: x + push):
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
    losses = token_losses(logits, tokens)
    expected = -logits.double().log_softmax(-1)[0, 3, tokens[0, 4]]
    assert losses.shape == (2, len(IDS) - 1)
    assert losses[0, 3].item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("name", ["blocks.9.hook_resid_post", "blocks.1.hook_resid_pots", "resid_post", ""])
def test_a_wrong_hook_point_lists_the_nearest(lm: LanguageModel, name: str):
    with pytest.raises(UsageError, match=r"the nearest are blocks\.\d") as error:
        lm.hook_point(name)
    assert "\n" not in str(error.value)


def test_unknown_models_are_refused_in_one_line(tmp_path: Path):
    with pytest.raises(UsageError, match="no model 'gtp2'"):
        load_model("gtp2")
    with pytest.raises(UsageError, match=r"no config\.json and safetensors"):
        load_model(str(tmp_path))
    assert find_model("tiny").weights_hash == TinyLM().weights_hash


def test_a_gguf_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MONOSEM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(UsageError, match="cannot be read as a GGUF"):
        load_model(str(tmp_path / "bad.gguf"))
    assert not list((tmp_path / "cache" / "models").glob("bad*"))
