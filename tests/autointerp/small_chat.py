"""A random chat model of Llama's architecture with a trained tokenizer: as a Hugging Face folder, or as a GGUF file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

N_CTX = 256
TEXT = 'Ada walked to the harbour and counted seven ships: {"1": true, "2": false}. Nobody believed it. ' * 4
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_chat_model(folder: Path, template: str | None = TEMPLATE, *, bos: bool = True) -> Path:
    """Write it into `folder`; the folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    special = ["<|bos|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.train_from_iterator([TEXT], trainer)
    names: dict[str, Any] = {"bos_token": "<|bos|>"} if bos else {"additional_special_tokens": ["<|bos|>"]}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|im_end|>", extra_special_tokens=["<|im_start|>"], **names
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    sizes = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=N_CTX, initializer_range=0.3, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(sizes).save_pretrained(folder)
    return folder


def _rotated(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of a query or key projection in GGUF's order: the two halves of each head interleaved."""
    return rearrange(weight, "(head half d) model -> (head d half) model", head=n_heads, half=2)


def write_gguf(net: Any, tokenizer: Any, file: Path) -> None:
    """Write the model as an unquantized GGUF, its tokenizer and chat template inside."""
    import gguf

    cfg, weights = net.config, net.state_dict()
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(cfg.hidden_size)
    writer.add_block_count(cfg.num_hidden_layers)
    writer.add_feed_forward_length(cfg.intermediate_size)
    writer.add_head_count(cfg.num_attention_heads)
    writer.add_head_count_kv(cfg.num_key_value_heads)
    writer.add_layer_norm_rms_eps(cfg.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    words = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = tokenizer.get_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary, key=lambda token: vocabulary[token]))
    writer.add_token_types([3 if i in tokenizer.all_special_ids else 1 for i in range(len(vocabulary))])
    writer.add_token_merges([" ".join(merge) for merge in words["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, cfg.num_hidden_layers)
    heads = {"q_proj": cfg.num_attention_heads, "k_proj": cfg.num_key_value_heads}
    for name, weight in weights.items():
        n_heads, array = heads.get(name.split(".")[-2]), weight.numpy()
        stem = names.get_name(name.removesuffix(".weight"))
        writer.add_tensor(f"{stem}.weight", array if n_heads is None else _rotated(array, n_heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
