"""Small random instances of real architectures, as folders that `save_pretrained` wrote, with a tokenizer each."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

# Test folders are no packages, and importlib mode leaves them off the path.
sys.path.insert(0, str(Path(__file__).parent))

from harvests import CFG

from activations.harvest import harvest
from activations.lm import LanguageModel
from activations.models import DEFAULT_MODEL, load_model
from activations.tiny import TinyLM
from store.run import Run, find_run

ARCHITECTURES = ("llama", "gpt2", "neox")
TEXT = "Ada walked to the harbour and counted seven ships. Nobody in Riverton believed it; they laughed. " * 4
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}"
)


def _tokenizer(folder: Path, *, bos: bool, chat: bool) -> int:
    """Save a byte-level BPE tokenizer; how many ids it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.train_from_iterator([TEXT], trainer)
    names = {"bos_token": "<|bos|>"} if bos else {}
    saved = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|eos|>", additional_special_tokens=special[2:], **names
    )
    if chat:
        saved.chat_template = CHAT_TEMPLATE
    saved.save_pretrained(folder)
    return len(words.get_vocab())


def _model(architecture: str, d_vocab: int, bos_id: int | None, width: int) -> torch.nn.Module:
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
    )

    torch.manual_seed(0)
    ids = {"bos_token_id": bos_id, "eos_token_id": 1, "pad_token_id": None}
    if architecture == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=d_vocab, hidden_size=width, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=64, **ids,
            )
        )  # fmt: skip
        norm = model.model.norm
    elif architecture == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=d_vocab, n_embd=width, n_layer=3, n_head=4, n_positions=64, **ids)
        )
        norm = model.transformer.ln_f
    else:
        model = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=d_vocab, hidden_size=width, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                max_position_embeddings=64, **ids,
            )
        )  # fmt: skip
        norm = model.gpt_neox.final_layer_norm
    torch.nn.init.normal_(norm.weight, 1.0, 0.2)
    return model


@pytest.fixture(scope="session")
def save_model() -> Callable[..., Path]:
    """Writes a random model of an architecture, with its tokenizer, into a folder; the folder."""

    def save(architecture: str, folder: Path, *, bos: bool = True, chat: bool = False, width: int = 32) -> Path:
        d_vocab = _tokenizer(folder, bos=bos, chat=chat)
        _model(architecture, d_vocab, 0 if bos else None, width).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="module", params=["tiny", *ARCHITECTURES])
def lm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, save_model: Callable[..., Path]
) -> LanguageModel:
    """A small random model: the tiny one, or a bridge over a real architecture."""
    return _opened(request.param, tmp_path_factory, save_model)


@pytest.fixture(scope="module", params=["tiny", *ARCHITECTURES, pytest.param("smollm2", marks=pytest.mark.slow)])
def any_lm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, save_model: Callable[..., Path]
) -> LanguageModel:
    """One of those, or among slow tests a real one, for what depends on no shape."""
    return _opened(request.param, tmp_path_factory, save_model)


def _opened(name: str, folders: pytest.TempPathFactory, save_model: Callable[..., Path]) -> LanguageModel:
    if name == "tiny":
        return TinyLM()
    return load_model(DEFAULT_MODEL if name == "smollm2" else str(save_model(name, folders.mktemp(name))), device="cpu")


@pytest.fixture
def rounding(lm: LanguageModel) -> float:
    """How far logits may be apart that are summed in another order: those of thirty layers are larger, too."""
    return 2e-5 if lm.d_model < 100 else 2e-3


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small harvest. Treat it as read-only."""
    return harvest(CFG, tmp_path_factory.mktemp("harvest"))


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """The same, which a test may damage."""
    shutil.copytree(run.root, tmp_path / "copy")
    return find_run(tmp_path / "copy", run.id)
