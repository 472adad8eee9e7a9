"""A harvest's tokens per second against the bare forward pass that it cannot do without.

Run from anywhere: `python bench/harvest_forward.py`. The bare pass is the same model from the same folder, loaded with
Hugging Face, cut after the hook point's layer, without the output matrix or a cache, on the very batches (padding and
all) that the harvest put through the model. The harvest reads, tokenizes, shuffles, checks, writes and hashes besides.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from activations.models import DEFAULT_MODEL, find_model, load_model
from bench.harness import Figure, main, paired, write
from bench.sides import N_THREADS, config, harvest_seconds, harvested, recorded

MODEL = DEFAULT_MODEL
HOOK_POINT, LAYER = "blocks.8.hook_resid_post", 8
CORPUS, N_TOKENS = "english", 49_152
REPEATS = 5
REACH = ">= 0.93"


def measure() -> bool:
    """Bare pass and harvest in turn."""
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        cfg = config(MODEL, (HOOK_POINT,), CORPUS, N_TOKENS)
        lm = load_model(MODEL)
        keeping, batches = recorded(lm)
        with keeping:
            _, run = harvested(cfg, lm, root / "warm")
        n_tokens, n_places = run.results["n_tokens"], sum(tokens.numel() for tokens in batches)
        bare = bare_model()
        pair = paired(lambda: forward(bare, batches), lambda: harvest_seconds(cfg, lm, root / "timed"), REPEATS)
    figures = [
        Figure("harvest / bare forward, tokens per second", pair.ratio, "ratio", REACH),
        Figure("harvest", n_tokens / pair.median_b, "tokens/s"),
        Figure("bare truncated forward", n_tokens / pair.median_a, "tokens/s"),
        Figure("padding in the batches", 1 - n_tokens / n_places, ""),
    ]
    settings = {
        "model": MODEL,
        "hook_point": HOOK_POINT,
        "corpus": CORPUS,
        "n_tokens": n_tokens,
        "n_threads": N_THREADS,
    }
    return write("harvest_forward", figures, **settings, **{"bare forward / harvest": pair})


def bare_model() -> Any:
    """The model's own transformer, ending with the hook point's layer."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(find_model(MODEL).folder), dtype=torch.float32).eval().model
    model.layers = model.layers[: LAYER + 1]
    model.norm = torch.nn.Identity()
    return model


@torch.inference_mode()
def forward(model: Any, batches: list[Tensor]) -> None:
    """Every batch, nothing kept."""
    for tokens in batches:
        model(tokens, use_cache=False)


if __name__ == "__main__":
    main(measure)
