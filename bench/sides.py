"""The project's side of the harvest benchmarks: the model is there before the clock starts, or costs nothing at all."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor

import activations.harvest
from activations.harvest import HarvestConfig
from activations.hook_point import HookPoint
from activations.lm import Edit, LanguageModel
from activations.text import TextConfig
from activations.tokenizer import HFTokenizer
from bench import words
from store.run import Run

N_THREADS = min(2, os.cpu_count() or 1)
"""On both sides."""
STUB_HOOK = "blocks.8.hook_resid_post"


PROBE_TOKENS = 2
"""A harvest looks at so many to learn how wide its vectors are."""


class StubLM(LanguageModel):
    """A forward pass that costs nothing: the same activations for every batch, with the peers' stub's values."""

    def __init__(self, folder: Path, d_model: int = words.D_MODEL, max_tokens: int = 65_536) -> None:
        """Read the tokenizer in `folder`, made by `save_stub`; a batch may have `max_tokens`."""
        self.name, self.device, self.weights_hash = "stub", "cpu", "stub"
        self.n_layers, self.d_model, self.n_ctx, self.d_vocab = words.N_LAYERS, d_model, 1024, words.D_VOCAB
        self.tokenizer = HFTokenizer(folder)
        self._x = torch.randn(max_tokens, d_model, generator=torch.Generator().manual_seed(0))

    def hook_names(self) -> tuple[str, ...]:
        """One for each layer."""
        return tuple(f"blocks.{layer}.hook_resid_post" for layer in range(self.n_layers))

    def capture(self, tokens: Tensor, hook_points: Sequence[HookPoint]) -> dict[str, Tensor]:
        """The first of the prepared activations, in the batch's shape."""
        x = self._x[: tokens.numel()].view(*tokens.shape, self.d_model)
        return {hook.name: x for hook in hook_points}

    def logits(self, tokens: Tensor) -> NoReturn:
        """Not part of a harvest."""
        raise NotImplementedError

    def hooked(self, hook_point: HookPoint, edit: Edit) -> AbstractContextManager[None]:
        """Not part of a harvest."""
        raise NotImplementedError

    def generate(self, ids: Sequence[int], n_tokens: int, temperature: float, seed: int) -> NoReturn:
        """Not part of a harvest."""
        raise NotImplementedError

    def unembedding(self) -> NoReturn:
        """Not part of a harvest."""
        raise NotImplementedError


def save_stub(folder: Path) -> None:
    """A model folder that can be found and hashed, with a tokenizer that works and weights that are nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "stub"}), encoding="utf-8")
    save_file({"nothing": torch.zeros(1)}, folder / "model.safetensors")
    words.save_tokenizer(folder)


def config(model: Path | str, hook_points: Sequence[str], corpus: Path | str, n_tokens: int) -> HarvestConfig:
    """A harvest with the defaults that a user gets."""
    text = TextConfig(corpus=str(corpus), n_tokens=n_tokens)
    return HarvestConfig(model=str(model), hook_points=tuple(hook_points), text=text, n_ctx=words.N_CTX)


def harvested(cfg: HarvestConfig, lm: LanguageModel, root: Path) -> tuple[float, Run]:
    """Harvest with a model that is loaded already: wall seconds of the call, and the run."""
    with (
        patch.object(activations.harvest, "load_model", lambda *_, **__: lm),
        patch.object(activations.harvest, "known_hook_names", lambda *_, **__: lm.hook_names()),
    ):
        started = time.perf_counter()
        run = activations.harvest.harvest(cfg, root)
        return time.perf_counter() - started, run


def stub_run(folder: Path, n_tokens: int) -> Run:
    """A harvest of `n_tokens` in `folder`, without a forward pass."""
    save_stub(folder / "stub")
    documents, _ = words.save_text(folder / "text", n_tokens)
    cfg = config(folder / "stub", (STUB_HOOK,), documents, n_tokens)
    return harvested(cfg, StubLM(folder / "stub"), folder / "runs")[1]


def harvest_seconds(cfg: HarvestConfig, lm: LanguageModel, root: Path) -> float:
    """Wall seconds of a harvest whose run is thrown away; what it wrote is not paid for by whoever runs next."""
    spent, _ = harvested(cfg, lm, root)
    shutil.rmtree(root)
    os.sync()
    return spent


def recorded(lm: LanguageModel) -> tuple[Any, list[Tensor]]:
    """A context in which every batch of tokens that goes through `lm` is kept in the list, but for tiny probes."""
    kept: list[Tensor] = []
    capture = lm.capture

    def keeping(tokens: Tensor, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        kept.extend([tokens] if tokens.numel() > PROBE_TOKENS else [])
        return capture(tokens, *args, **kwargs)

    return patch.object(lm, "capture", keeping), kept
