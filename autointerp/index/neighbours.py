"""Nearest latents by the cosine of decoder rows, and of encoder columns: exact, a block of latents at a time."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activations.progress import Progress, no_progress
from sae.base import SAE
from sae.encoder import EncoderSAE

ENTRIES = 16_000_000
"""Cosines held at a time."""


@torch.inference_mode()
def neighbours(
    directions: dict[str, Float[Tensor, "d_sae _"]], n: int, progress: Progress = no_progress
) -> dict[str, np.ndarray]:
    """The columns of the index's `neighbours` table: of each latent the `n` others of the highest cosine, by side.

    A latent whose direction is 0 has none, and is nobody's.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("latent", "side", "rank", "other", "cosine")}
    for side, rows in directions.items():
        unit = torch.nn.functional.normalize(rows.float(), dim=1)
        whole = unit.norm(dim=1) > 0.5
        size = max(1, ENTRIES // max(len(unit), 1))
        starts = range(0, len(unit), size)
        for start in progress(starts, len(starts), f"{side} neighbours"):
            cosines = unit[start : start + size] @ unit.t()
            own = torch.arange(len(cosines))
            cosines[own, start + own] = -torch.inf
            cosines[:, ~whole] = -torch.inf
            cosine, other = cosines.topk(min(n, len(unit) - 1), dim=1)
            row, rank = (cosine.isfinite() & whole[start : start + size, None]).nonzero(as_tuple=True)
            found["latent"].append((start + row).numpy())
            found["side"].append(np.full(len(row), side, dtype=object))
            found["rank"].append(rank.numpy())
            found["other"].append(other[row, rank].numpy())
            found["cosine"].append(cosine[row, rank].numpy())
    columns = {name: np.concatenate(parts) if parts else np.empty(0) for name, parts in found.items()}
    order = np.lexsort((columns["rank"], columns["side"].astype(str), columns["latent"])) if found["latent"] else []
    return {name: column[order] if len(column) else column for name, column in columns.items()}


def directions_of(sae: SAE) -> dict[str, Tensor]:
    """Decoder rows, and encoder columns as rows where the dictionary has an encoder."""
    sides = {"decoder": sae.W_dec.detach()}
    if isinstance(sae, EncoderSAE):
        sides["encoder"] = sae.W_enc.detach().t()
    return sides
