"""One text through a model and its dictionary, token by token: what fires, what the dictionary misses, what surprises.

    error   ‖x − x̂‖² / ‖x‖²
    fvu     ‖x − x̂‖² / mean of ‖x − mean(x)‖², both means over the text's normal tokens
    loss    − log p(token | those before it), in nats

The mean of `fvu` over the normal tokens is the FVU of the text: it says how much of that each token is to blame for.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from activations.losses import distribution
from sae.metrics import StreamingFVU
from store.shards import TOKEN_CLASSES

if TYPE_CHECKING:
    from autointerp.subject import Subject


class PerToken(NamedTuple):
    """What is found on a text of `n_tokens`."""

    token_class: np.ndarray
    """`[n_tokens]` as `store.shards.TOKEN_CLASSES`."""
    latent: np.ndarray
    """`[n_events]`: which latent fired."""
    pos: np.ndarray
    """`[n_events]`: on which token."""
    value: np.ndarray
    """`[n_events]`: how strongly."""
    error: np.ndarray
    """`[n_tokens]` float64; NaN where x is 0."""
    fvu_part: np.ndarray
    """`[n_tokens]` float64; NaN where there is no FVU."""
    fvu: float | None
    """None for fewer than two normal tokens."""
    loss: np.ndarray
    """`[n_tokens]` float64; NaN of the first token, which nothing predicts, and of all where none were asked for."""


def per_token(subject: "Subject", ids: list[int], *, losses: bool = True) -> PerToken:
    """Read one text.

    Args:
        subject: model and dictionary.
        ids: the text.
        losses: find losses too, which takes the whole model and not the part below the hook point alone.
    """
    with subject.busy, torch.inference_mode():
        x, loss = _passed(subject, ids) if losses else (subject.rows(ids), np.full(len(ids), np.nan))
        out = subject.sae(x.to(subject.sae.W_dec))
        x, x_hat = x.cpu(), out.x_hat.float().cpu()
    classes = subject.classes(ids, x.norm(dim=1).numpy())
    normal = torch.from_numpy(classes == TOKEN_CLASSES["normal"])
    fvu = StreamingFVU()
    fvu.update(x[normal], x_hat[normal])
    told = fvu.value() if fvu.n_rows > 1 else None
    squared = (x.double() - x_hat.double()).square().sum(dim=1).numpy()
    on = out.latents.active.cpu().numpy()
    pos, latent, value = (
        each.cpu().numpy()[on] for each in (out.latents.rows, out.latents.indices, out.latents.values)
    )
    return PerToken(
        token_class=classes,
        latent=latent,
        pos=pos,
        value=value,
        error=_divided(squared, x.double().square().sum(dim=1).numpy()),
        fvu_part=np.full(len(ids), np.nan) if told is None else squared * fvu.n_rows / fvu.total,
        fvu=told,
        loss=loss,
    )


def _passed(subject: "Subject", ids: list[int]) -> tuple[Tensor, np.ndarray]:
    """Activations `[pos, d_in]` and losses `[pos]`, of one pass."""
    tokens = torch.tensor([ids])
    x, logits = subject.lm.capture_with_logits(tokens, subject.hook)
    loss = np.full(len(ids), np.nan)
    target = tokens[0, 1:].to(logits.device)
    # Kept: no more than sums over a row of logits, of which a long text has gigabytes.
    loss[1:] = distribution(logits[0, :-1], keep_weights=False).cross_entropy(target).cpu().numpy()
    return x.flatten(2)[0].float(), loss


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
