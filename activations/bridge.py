"""Hugging Face causal language models through TransformerLens' `TransformerBridge`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from activations.hook_point import HookPoint
from activations.lm import Edit, LanguageModel
from activations.tokenizer import HFTokenizer, Tokenizer


@final
class BridgeLM(LanguageModel):
    """A model in a local folder: safetensors, config and tokenizer as `save_pretrained` writes them."""

    def __init__(self, bridge: Any, tokenizer: Tokenizer, name: str, weights_hash: str) -> None:
        """Wrap a booted `TransformerBridge`."""
        self._bridge = bridge
        self.tokenizer = tokenizer
        self.name, self.weights_hash = name, weights_hash
        cfg = bridge.cfg
        self.n_layers, self.d_model, self.n_ctx = cfg.n_layers, cfg.d_model, cfg.n_ctx
        self.d_vocab = cfg.d_vocab

    @classmethod
    def load(cls, folder: Path, name: str, weights_hash: str, device: str, dtype: torch.dtype) -> "BridgeLM":
        """Boot the model in `folder`."""
        from transformer_lens.model_bridge import TransformerBridge  # eight seconds: only when a model is needed
        from transformers.utils import logging

        logging.disable_progress_bar()
        bridge = TransformerBridge.boot_transformers(str(folder), device=device, dtype=dtype)
        bridge.eval()
        return cls(bridge, HFTokenizer(folder), name, weights_hash)

    def hook_names(self) -> tuple[str, ...]:
        """Every TransformerLens name and alias of the bridge."""
        return tuple(self._bridge.hook_dict)

    @torch.inference_mode()
    def capture(
        self, tokens: Int[Tensor, "batch pos"], hook_points: Sequence[HookPoint]
    ) -> dict[str, Float[Tensor, "batch pos ..."]]:
        """Activations at each hook point, by name."""
        kept: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return lambda x, hook: kept.__setitem__(name, x)

        self._bridge.run_with_hooks(
            tokens.to(self._bridge.cfg.device),
            fwd_hooks=[(hook.name, keep(hook.name)) for hook in hook_points],
            stop_at_layer=max(hook.stop_at_layer for hook in hook_points),
            return_type=None,
        )
        return kept

    @torch.inference_mode()
    def logits(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits."""
        return self._bridge(tokens.to(self._bridge.cfg.device), return_type="logits")

    @contextmanager
    def hooked(self, hook_point: HookPoint, edit: Edit) -> Iterator[None]:
        """While the context lasts, `edit` is applied in every forward pass."""
        with self._bridge.hooks(fwd_hooks=[(hook_point.name, lambda x, hook: edit(x))]):
            yield

    @torch.inference_mode()
    def generate(self, ids: Sequence[int], n_tokens: int, temperature: float, seed: int) -> list[int]:
        """New ids with the key-value cache; the global random state is left as it was."""
        prompt = torch.tensor([list(ids)], device=self._bridge.cfg.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            out = self._bridge.generate(
                prompt,
                max_new_tokens=n_tokens,
                do_sample=temperature > 0,
                temperature=temperature or 1.0,
                stop_at_eos=self._bridge.cfg.eos_token_id is not None,
                return_type="tokens",
                verbose=False,
            )
        new = out[0, len(ids) :].tolist()
        eos = self._bridge.cfg.eos_token_id
        return new[: new.index(eos)] if eos in new else new

    def unembedding(self) -> Float[Tensor, "d_model d_vocab"]:
        """Gain of the final norm (after centring, for a LayerNorm), then `W_U`."""
        norm, cfg = self._bridge.ln_final, self._bridge.cfg
        weight = self._bridge.W_U.detach()
        gain = norm.weight.detach()
        folded = gain[:, None] * weight
        # LayerNorm subtracts the mean over d_model first; RMSNorm does not.
        return folded if cfg.uses_rms_norm else folded - folded.mean(0, keepdim=True)
