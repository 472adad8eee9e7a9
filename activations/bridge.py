"""Hugging Face causal language models through TransformerLens' `TransformerBridge`."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from activations.hook_point import HookPoint
from activations.lm import Edit, LanguageModel
from activations.native import native_components, native_forward
from activations.tokenizer import HFTokenizer, Tokenizer
from store.errors import UsageError

log = logging.getLogger(__name__)
CHECK_TOKENS = 16
"""Positions of the passes that compare the model's own modules with the bridge's."""
CHECK_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference between the two, as a share of the largest activation: they round in another order."""


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
        self.device = str(cfg.device)
        self._n_edits = 0
        self._native: dict[tuple[str, ...], list[torch.nn.Module]] = {}

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
        tokens = tokens.to(self._bridge.cfg.device)
        with self._fastest(hook_points):
            return self._capture(tokens, hook_points)

    def _capture(self, tokens: Tensor, hook_points: Sequence[HookPoint]) -> dict[str, Tensor]:
        kept = self._run(tokens, hook_points)
        for hook in hook_points:
            if (shape := tuple(kept[hook.name].shape))[:2] != tuple(tokens.shape):
                raise UsageError(
                    f"{hook.name} has shape {shape}, not a vector for each of {tuple(tokens.shape)} tokens"
                )
        return {hook.name: kept[hook.name] for hook in hook_points}

    def _run(self, tokens: Tensor, hook_points: Sequence[HookPoint]) -> dict[str, Tensor]:
        """What was seen at each hook point that fired."""
        kept: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return lambda x, hook: kept.__setitem__(name, x)

        self._bridge.run_with_hooks(
            tokens,
            fwd_hooks=[(hook.name, keep(hook.name)) for hook in hook_points],
            stop_at_layer=max(hook.stop_at_layer for hook in hook_points),
            return_type=None,
            use_cache=False,
        )
        return kept

    def _fastest(self, hook_points: Sequence[HookPoint]) -> AbstractContextManager[None]:
        """The model's own modules where they were seen to compute the same at these hook points, else the bridge's."""
        if self._n_edits:
            # An edit may sit inside what the model's own modules do in one step.
            return nullcontext()
        names = tuple(hook.name for hook in hook_points)
        if names not in self._native:
            self._native[names] = self._checked_components(hook_points)
        return native_forward(self._bridge, self._native[names])

    def _checked_components(self, hook_points: Sequence[HookPoint]) -> list[torch.nn.Module]:
        """Components whose own modules compute the same, seen on tokens of our own: a caller's may be too few."""
        tokens = check_tokens(self.d_vocab, min(CHECK_TOKENS, self.n_ctx)).to(self._bridge.cfg.device)
        names = [hook.name for hook in hook_points]
        expected = self._capture(tokens, hook_points)
        components = native_components(self._bridge, names)
        try:
            found = self._run_natively(tokens, hook_points, components)
            if silent := [name for name in names if name not in found]:
                components = native_components(self._bridge, names, silent)
                found = self._run_natively(tokens, hook_points, components)
        except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            log.info("%s runs through the bridge's modules, its own do not fit (%s)", self.name, error)
            return []
        for name, x in expected.items():
            largest = float(x.abs().max())
            difference = float((x - found[name]).abs().max()) if name in found else float("nan")
            if not difference <= CHECK_TOLERANCE.get(x.dtype, 1e-3) * largest:
                log.info(
                    "%s runs through the bridge's modules: its own differ by %.3g at %s", self.name, difference, name
                )
                return []
        return components

    def _run_natively(
        self, tokens: Tensor, hook_points: Sequence[HookPoint], components: list[torch.nn.Module]
    ) -> dict[str, Tensor]:
        with native_forward(self._bridge, components):
            return self._run(tokens, hook_points)

    @torch.inference_mode()
    def logits(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits."""
        return self._bridge(tokens.to(self._bridge.cfg.device), return_type="logits")

    @contextmanager
    def hooked(self, hook_point: HookPoint, edit: Edit) -> Iterator[None]:
        """While the context lasts, `edit` is applied in every forward pass."""
        self._n_edits += 1
        try:
            with self._bridge.hooks(fwd_hooks=[(hook_point.name, lambda x, hook: edit(x))]):
                yield
        finally:
            self._n_edits -= 1

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


def check_tokens(d_vocab: int, n_ctx: int) -> Int[Tensor, "2 n_ctx"]:
    """Two sequences of ids spread over the vocabulary, the second the first in another order."""
    ids = torch.linspace(0, d_vocab - 1, n_ctx).long()
    return torch.stack([ids, ids.flip(0)])
