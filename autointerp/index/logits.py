"""Direct logit effect: the next tokens a decoder row promotes, W_dec · norm · W_U (logit lens, nostalgebraist 2020)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activations.progress import Progress, no_progress

ENTRIES = 16_000_000
"""Effects held at a time."""
N_BINS = 40


class LogitEffects(NamedTuple):
    """What the decoder rows do to the logits."""

    logits: dict[str, np.ndarray]
    """The columns of the index's `logits` table but for `token`."""
    effects: Mapping[str, Any]
    """The columns of its `logit_effects` table."""


@torch.inference_mode()
def logit_effects(
    W_dec: Float[Tensor, "d_sae d_model"],
    unembedding: Float[Tensor, "d_model d_vocab"],
    n: int,
    progress: Progress = no_progress,
) -> LogitEffects:
    """The `n` most promoted and most suppressed tokens of every latent, and how its effects are distributed.

    Values are logits per unit of activation at a final-norm scale of 1, minus their mean over the vocabulary: adding a
    constant to every logit changes no probability.
    """
    n = min(n, unembedding.shape[1])
    size = max(1, ENTRIES // unembedding.shape[1])
    starts = range(0, len(W_dec), size)
    logits, effects = [], []
    for start in progress(starts, len(starts), "promoted and suppressed tokens"):
        effect = W_dec[start : start + size] @ unembedding
        effect -= effect.mean(dim=1, keepdim=True)
        logits.append(_extremes(effect, n, start))
        effects.append(_distribution(effect, start))
    return LogitEffects(_joined(logits), _joined(effects) | {"histogram": _lists([e["histogram"] for e in effects])})


def _extremes(effect: Tensor, n: int, start: int) -> dict[str, np.ndarray]:
    rows = len(effect)
    latent = np.repeat(np.arange(start, start + rows), 2 * n)
    sides = [(sign * values, ids) for sign in (1.0, -1.0) for values, ids in ((sign * effect).topk(n, dim=1),)]
    return {
        "latent": latent,
        "side": np.tile(np.repeat(np.array(["top", "bottom"], dtype=object), n), rows),
        "rank": np.tile(np.arange(n), 2 * rows),
        "token_id": torch.cat([ids for _, ids in sides], dim=1).flatten().numpy(),
        "value": torch.cat([values for values, _ in sides], dim=1).flatten().numpy(),
    }


def _distribution(effect: Tensor, start: int) -> dict[str, np.ndarray]:
    """Moments over the vocabulary, about a mean of 0, in float64, and a histogram."""
    square = effect.square()
    second, fourth = square.mean(dim=1, dtype=torch.float64), square.square().mean(dim=1, dtype=torch.float64)
    third = (square * effect).mean(dim=1, dtype=torch.float64)
    std = second.sqrt()
    safe = std.clamp_min(1e-30)
    low, high = effect.amin(dim=1), effect.amax(dim=1)
    width = (high - low).clamp_min(1e-30)
    bins = ((effect - low[:, None]) / width[:, None] * N_BINS).long().clamp_(0, N_BINS - 1)
    bins += N_BINS * torch.arange(len(effect))[:, None]
    counts = torch.bincount(bins.flatten(), minlength=N_BINS * len(effect))
    return {
        "latent": np.arange(start, start + len(effect)),
        "std": std.numpy(),
        "skewness": (third / safe**3).numpy(),
        "kurtosis": (fourth / safe**4).numpy(),
        "low": low.numpy(),
        "high": high.numpy(),
        "histogram": counts.view(-1, N_BINS).numpy(),
    }


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _lists(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    return list(np.concatenate(parts))


class Heads(NamedTuple):
    """Decoder rows of heads' outputs side by side, in the residual stream."""

    rows: Float[Tensor, "d_sae d_model"]
    """What each adds to the residual stream: the sum over heads of its part in the head times W_O."""
    by_head: dict[str, np.ndarray]
    """The columns of the index's `heads` table."""


@torch.inference_mode()
def through_heads(W_dec: Float[Tensor, "d_sae d_in"], W_O: Float[Tensor, "head d_head d_model"]) -> Heads:
    """What decoder rows at `attn.hook_z` write to the residual stream, head by head (Kissane et al. 2024,
    arXiv:2406.17759, section 3: the share of a row's norm that lies in each head)."""
    parts = W_dec.unflatten(1, W_O.shape[:2])
    shares = parts.double().square().sum(dim=2)
    shares /= shares.sum(dim=1, keepdim=True).clamp_min(1e-300)
    rows = torch.zeros(len(W_dec), W_O.shape[2])
    written = torch.empty(shares.shape, dtype=torch.float64)
    along = torch.empty_like(written)
    for head in range(len(W_O)):
        rows += parts[:, head] @ W_O[head].float()
    for head in range(len(W_O)):
        own = parts[:, head] @ W_O[head].float()
        written[:, head] = own.norm(dim=1)
        along[:, head] = (own.double() * rows).sum(dim=1)
    along /= rows.double().square().sum(dim=1, keepdim=True).clamp_min(1e-300)
    latent, head = np.indices(tuple(shares.shape))
    columns = {"latent": latent, "head": head, "share": shares, "norm": written, "along": along}
    return Heads(rows, {name: np.asarray(column).ravel() for name, column in columns.items()})
