"""Hugging Face causal language models through TransformerLens' `TransformerBridge`."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from activations.hook_point import HEAD_SITE, HookPoint
from activations.lm import Cache, Edit, LanguageModel
from activations.native import native_components, native_forward, without_blocks
from activations.reading import Reading
from activations.tokenizer import HFTokenizer, Tokenizer
from store.errors import UsageError

log = logging.getLogger(__name__)
CHECK_TOKENS = 16
"""Positions of the passes that compare the model's own modules with the bridge's."""
RESUMED_TOKENS = 128
"""The same of passes that begin in the middle: long enough for what looks back over a window."""
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
        ends = [] if cfg.eos_token_id is None else cfg.eos_token_id
        self.eos_ids = frozenset(ends if isinstance(ends, list) else [ends])
        self._n_edits = 0
        self._native: dict[tuple[str, ...], list[torch.nn.Module]] = {}
        self._resumable: dict[str, bool | None] = {}
        """By hook point: whether blocks return tuples where the pass can begin there, None where it cannot."""

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
    def logits(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits."""
        reading = None if real is None else Reading.of(real, tokens.shape[1])
        with self._pass(reading):
            return self._bridge(
                tokens.to(self._bridge.cfg.device), return_type="logits", attention_mask=self._mask(real)
            )

    @torch.inference_mode()
    def step(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch whole"], cache: Cache = None
    ) -> tuple[Float[Tensor, "batch d_vocab"], Cache]:
        """Logits after the last position, and the key-value cache."""
        with self._pass(Reading.of(real, tokens.shape[1], continues=cache is not None)):
            logits, cache = self._bridge(
                tokens.to(self._bridge.cfg.device),
                return_type="logits_and_cache",
                attention_mask=self._mask(real),
                past_key_values=cache,
                use_cache=True,
            )
        return logits[:, -1], cache

    def _mask(self, real: Tensor | None) -> Tensor | None:
        """None without padding: attention is the same, and faster."""
        return None if real is None or bool(real.all()) else real.to(self._bridge.cfg.device)

    @torch.inference_mode()
    def capture_with_logits(
        self, tokens: Int[Tensor, "batch pos"], hook_point: HookPoint
    ) -> tuple[Float[Tensor, "batch pos ..."], Float[Tensor, "batch pos d_vocab"]]:
        """One whole pass, by the model's own modules where they were seen to compute the same."""
        tokens, kept = tokens.to(self._bridge.cfg.device), []
        with self._fastest([hook_point]):
            logits = self._bridge.run_with_hooks(
                tokens, fwd_hooks=[(hook_point.name, lambda x, hook: kept.append(x))], return_type="logits"
            )
        if len(kept) != 1:
            return super().capture_with_logits(tokens, hook_point)
        return kept[0], logits

    @torch.inference_mode()
    def logits_from(
        self, tokens: Int[Tensor, "batch pos"], hook_point: HookPoint, x: Float[Tensor, "batch pos ..."]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """From the residual stream between blocks without the blocks before it, where that was seen to be the same."""
        first = _next_block(hook_point, self.n_layers)
        if first is None or self._n_edits:
            return super().logits_from(tokens, hook_point, x)
        if hook_point.name not in self._resumable:
            self._resumable[hook_point.name] = self._checked_resumption(hook_point, first)
        as_tuple = self._resumable[hook_point.name]
        if as_tuple is None:
            return super().logits_from(tokens, hook_point, x)
        return self._resumed(x.to(self._bridge.cfg.device), first, as_tuple)

    def _resumed(self, x: Tensor, first: int, as_tuple: bool) -> Tensor:
        # nobody looks inside any component, and the model's own modules are the faster ones
        native = native_forward(self._bridge, native_components(self._bridge, ()))
        with native, without_blocks(self._bridge, first, as_tuple=as_tuple):
            return self._bridge(x, return_type="logits", start_at_layer=first)

    def _checked_resumption(self, hook_point: HookPoint, first: int) -> bool | None:
        """How blocks return, seen on tokens of our own; None where a pass begun here differs from a whole one."""
        tokens = check_tokens(self.d_vocab, min(RESUMED_TOKENS, self.n_ctx)).to(self._bridge.cfg.device)
        x = self.capture(tokens, [hook_point])[hook_point.name]
        expected = super().logits_from(tokens, hook_point, x)
        tolerance = CHECK_TOLERANCE.get(expected.dtype, 1e-3) * float(expected.abs().max())
        for as_tuple in (False, True):
            try:
                found = self._resumed(x, first, as_tuple)
            except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
                continue
            if found.shape == expected.shape and float((found - expected).abs().max()) <= tolerance:
                return as_tuple
        log.info("%s cannot begin at %s: every pass is a whole one", self.name, hook_point.name)
        return None

    @contextmanager
    def hooked(self, hook_point: HookPoint, edit: Edit) -> Iterator[None]:
        """While the context lasts, `edit` is applied in every forward pass."""
        self._n_edits += 1
        try:
            with self._bridge.hooks(fwd_hooks=[(hook_point.name, lambda x, hook: edit(x))]):
                yield
        finally:
            self._n_edits -= 1

    def unembedding(self) -> Float[Tensor, "d_model d_vocab"]:
        """Gain of the final norm (after centring, for a LayerNorm), then `W_U`."""
        norm, cfg = self._bridge.ln_final, self._bridge.cfg
        weight = self._bridge.W_U.detach()
        gain = norm.weight.detach()
        folded = gain[:, None] * weight
        # LayerNorm subtracts the mean over d_model first; RMSNorm does not.
        return folded if cfg.uses_rms_norm else folded - folded.mean(0, keepdim=True)

    def head_outputs(self, hook_point: HookPoint) -> Float[Tensor, "head d_head d_model"] | None:
        """`W_O` of the layer's attention at `attn.hook_z`."""
        if hook_point.site != HEAD_SITE:
            return None
        return self._bridge.blocks[hook_point.layer].attn.W_O.detach()


def _next_block(hook_point: HookPoint, n_layers: int) -> int | None:
    """The block that reads nothing but this hook point, where there is one with blocks before it."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", hook_point.name)
    if found is None:
        return None
    first = int(found[1]) + (found[2] == "post")
    return first if 0 < first < n_layers else None


def check_tokens(d_vocab: int, n_ctx: int) -> Int[Tensor, "2 n_ctx"]:
    """Two sequences of ids spread over the vocabulary, the second the first in another order."""
    ids = torch.linspace(0, d_vocab - 1, n_ctx).long()
    return torch.stack([ids, ids.flip(0)])
