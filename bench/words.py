"""A GPT-2-size model with random weights, its tokenizer of made-up words, and texts of them: alike for every side.

A document's words make whole sequences of `N_CTX` tokens with BOS, so that a peer which wants sequences of one length
and the project, which wants documents, read the same tokens.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

N_CTX = 128
WORDS_PER_DOCUMENT = 8 * (N_CTX - 1)
"""Eight sequences a document: just under the 1,024 tokens that a harvest takes of one."""
TOKENS_PER_DOCUMENT = 8 * N_CTX
D_MODEL, N_LAYERS, N_HEADS, D_VOCAB = 768, 12, 12, 50_257
"""GPT-2 small."""
BOS = "<|endoftext|>"


def save_tokenizer(folder: Path) -> None:
    """A fast tokenizer in `folder`: `w0` to `w50255`, split at spaces, and GPT-2's only special token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{i}": i for i in range(D_VOCAB - 1)} | {BOS: D_VOCAB - 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=BOS))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS, unk_token=BOS)
    wrapped.save_pretrained(folder)


def save_model(folder: Path) -> None:
    """GPT-2 small with seeded random weights, and the tokenizer, as `save_pretrained` writes them."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": N_HEADS, "vocab_size": D_VOCAB}
    # n_ctx: in the hub's config.json of GPT-2, and read by TransformerLens 3
    GPT2LMHeadModel(GPT2Config(**shape, n_ctx=1024)).save_pretrained(folder)
    save_tokenizer(folder)


def save_text(folder: Path, n_tokens: int) -> tuple[Path, Path]:
    """The same `n_tokens` twice: as documents (JSON lines) for the project, as BOS and ids (Parquet) for a peer."""
    if n_tokens % TOKENS_PER_DOCUMENT:
        raise ValueError(
            f"n_tokens={n_tokens} is not made of whole documents: take a multiple of {TOKENS_PER_DOCUMENT}"
        )
    n_documents = n_tokens // TOKENS_PER_DOCUMENT
    words = np.random.default_rng(0).integers(0, D_VOCAB - 1, (n_documents, WORDS_PER_DOCUMENT), np.int32)
    folder.mkdir(parents=True, exist_ok=True)
    documents, sequences = folder / "words.jsonl", folder / "tokens.parquet"
    lines = (json.dumps({"text": " ".join(f"w{i}" for i in document)}) + "\n" for document in words.tolist())
    documents.write_text("".join(lines), encoding="utf-8")
    ids = words.reshape(-1, N_CTX - 1)
    with_bos = np.concatenate([np.full((len(ids), 1), D_VOCAB - 1, np.int32), ids], axis=1)
    pq.write_table(pa.table({"input_ids": list(with_bos)}), sequences)
    return documents, sequences
