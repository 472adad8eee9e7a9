"""A random two-layer transformer over bytes: everything runs on it offline, in milliseconds. It knows nothing."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from activations.hook_point import HEAD_SITE, HookPoint
from activations.lm import Cache, Edit, LanguageModel
from activations.reading import Reading
from activations.tokenizer import ByteTokenizer

SITES = ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")


@final
class TinyLM(LanguageModel):
    """Pre-norm GPT with learned positions, RMS norm with a gain, and no training."""

    def __init__(self, seed: int = 0) -> None:
        """Draw the weights from `seed`."""
        self.name, self.device = "tiny", "cpu"
        self.weights_hash = f"tiny-1-{seed}"
        self.n_layers, self.d_model, self.n_ctx, self.n_heads = 2, 32, 512, 4
        self.tokenizer = ByteTokenizer()
        self.d_vocab = self.tokenizer.d_vocab
        self.eos_ids = frozenset({ByteTokenizer.eos_id})
        self._edits: list[tuple[str, Edit]] = []
        random = torch.Generator().manual_seed(seed)

        def weight(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random) / math.sqrt(shape[0])

        d, d_mlp = self.d_model, 4 * self.d_model
        self.W_E = torch.randn(self.d_vocab, d, generator=random)
        self.W_pos = 0.1 * torch.randn(self.n_ctx, d, generator=random)
        self.blocks = [
            {"qkv": weight(d, 3 * d), "o": weight(d, d), "in": weight(d, d_mlp), "out": weight(d_mlp, d)}
            for _ in range(self.n_layers)
        ]
        self.gain = 1 + 0.2 * torch.randn(d, generator=random)
        self.W_U = weight(d, self.d_vocab)

    def hook_names(self) -> tuple[str, ...]:
        """`blocks.0.hook_resid_pre` to `blocks.1.hook_resid_post`."""
        return tuple(f"blocks.{layer}.{site}" for layer in range(self.n_layers) for site in SITES)

    def capture(
        self, tokens: Int[Tensor, "batch pos"], hook_points: Sequence[HookPoint]
    ) -> dict[str, Float[Tensor, "batch pos ..."]]:
        """Activations at each hook point, by name."""
        kept: dict[str, Tensor] = {}
        self._residual(tokens, max(hook.stop_at_layer for hook in hook_points), kept)
        return {hook.name: kept[hook.name] for hook in hook_points}

    def logits(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits."""
        reading = None if real is None else Reading.of(real, tokens.shape[1])
        with self._pass(reading):
            return _rms(self._residual(tokens, self.n_layers, {}, real)) * self.gain @ self.W_U

    def step(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch whole"], cache: Cache = None
    ) -> tuple[Float[Tensor, "batch d_vocab"], Cache]:
        """Logits after the last position; what it remembers is the tokens, which it reads again."""
        whole = tokens if cache is None else torch.cat([cache, tokens], dim=1)
        return self.logits(whole, real)[:, -1], whole

    @contextmanager
    def hooked(self, hook_point: HookPoint, edit: Edit) -> Iterator[None]:
        """While the context lasts, `edit` is applied in every forward pass."""
        self._edits.append((hook_point.name, edit))
        try:
            yield
        finally:
            self._edits.pop()

    def unembedding(self) -> Float[Tensor, "d_model d_vocab"]:
        """Gain of the final norm, then `W_U`."""
        return self.gain[:, None] * self.W_U

    def head_outputs(self, hook_point: HookPoint) -> Float[Tensor, "head d_head d_model"] | None:
        """The output weights of the layer's attention at `attn.hook_z`."""
        if hook_point.site != HEAD_SITE:
            return None
        return rearrange(self.blocks[hook_point.layer]["o"], "(head d) model -> head d model", head=self.n_heads)

    def _residual(self, tokens: Tensor, n_layers: int, kept: dict[str, Tensor], real: Tensor | None = None) -> Tensor:
        def at(name: str, x: Tensor) -> Tensor:
            for place, edit in self._edits:
                if place == name:
                    x = edit(x)
            kept[name] = x
            return x

        place, seen = _places(tokens, real)
        x = self.W_E[tokens] + self.W_pos[place]
        for layer, block in enumerate(self.blocks[:n_layers]):
            x = at(f"blocks.{layer}.hook_resid_pre", x)
            q, k, v = rearrange(_rms(x) @ block["qkv"], "b p (three h d) -> three b h p d", three=3, h=self.n_heads)
            z = rearrange(F.scaled_dot_product_attention(q, k, v, seen, is_causal=seen is None), "b h p d -> b p h d")
            z = at(f"blocks.{layer}.attn.hook_z", z)
            out = at(f"blocks.{layer}.hook_attn_out", rearrange(z, "b p h d -> b p (h d)") @ block["o"])
            x = at(f"blocks.{layer}.hook_resid_mid", x + out)
            out = at(f"blocks.{layer}.hook_mlp_out", F.gelu(_rms(x) @ block["in"]) @ block["out"])
            x = at(f"blocks.{layer}.hook_resid_post", x + out)
        return x


def _places(tokens: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Each token's place in its text, and what it sees where that is not all before it; padding sees itself."""
    n = tokens.shape[1]
    if real is None:
        return torch.arange(n), None
    seen = torch.ones(n, n, dtype=torch.bool).tril() & real[:, None, :] | torch.eye(n, dtype=torch.bool)
    return (real.cumsum(dim=1) - 1).clamp(min=0), seen[:, None]


def _rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
