"""Direct logit effect: the next tokens a decoder row promotes, W_dec · norm · W_U (logit lens, nostalgebraist 2020)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from activations.progress import Progress, no_progress

CHUNK_LATENTS = 256


@torch.inference_mode()
def top_and_bottom(
    W_dec: Float[Tensor, "d_sae d_model"],
    unembedding: Float[Tensor, "d_model d_vocab"],
    n: int,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The `n` most promoted and most suppressed tokens of every latent.

    Values are logits per unit of activation at a final-norm scale of 1, minus their mean over the vocabulary: adding a
    constant to every logit changes no probability.

    Returns:
        The columns of the index's `logits` table but for `token`.
    """
    n = min(n, unembedding.shape[1])
    columns: dict[str, list[Any]] = {name: [] for name in ("latent", "side", "rank", "token_id", "value")}
    starts = range(0, len(W_dec), CHUNK_LATENTS)
    for start in progress(starts, len(starts), "promoted and suppressed tokens"):
        effect = W_dec[start : start + CHUNK_LATENTS] @ unembedding
        effect -= effect.mean(dim=1, keepdim=True)
        for side, sign in (("top", 1.0), ("bottom", -1.0)):
            values, ids = (sign * effect).topk(n, dim=1)
            rows = len(effect)
            columns["latent"] += (start + torch.arange(rows)).repeat_interleave(n).tolist()
            columns["side"] += [side] * (rows * n)
            columns["rank"] += list(range(n)) * rows
            columns["token_id"] += ids.flatten().tolist()
            columns["value"] += (sign * values).flatten().tolist()
    return columns
