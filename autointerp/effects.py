"""What a latent does to a next-token distribution: in full, with the model run without it, and directly.

    full     a forward pass in which the latent is set to 0, on one token or on all: whatever later layers made of it
             is gone, too
    direct   the latent's own write, a · W_dec, taken from the last layer's output and nothing else: what no later
             layer read of it. Through the final norm at the scale that it had, and the unembedding, it is

                 Δ logits = − s · a · (W_dec · U),   logits = s · (x_last · U) + b

             with U the norm's gain and the unembedding (`LanguageModel.unembedding`) and b the logits of x_last = 0

Both are told as what happens when the latent is taken away.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activations.hook_point import HookPoint
from activations.losses import distribution
from autointerp.index.logits import through_heads
from autointerp.prompt_findings import Change, Effects, Moved
from sae.intervene import Intervention, InterventionConfig
from store.errors import UsageError

if TYPE_CHECKING:
    from autointerp.subject import Subject

N_MOVED = 10
LINEAR = 0.02
"""Share of the logits' length that s · (x_last · U) + b may miss: rounding. A model that caps them misses more."""


def effects(
    subject: "Subject", ids: list[int], latent: int, pos: int, *, everywhere: bool = False, target: str | None = None
) -> Effects:
    """What `latent` does to the token after `pos`.

    Args:
        subject: model and dictionary.
        ids: the text.
        latent: its number.
        pos: the token on which it is looked at, and after which the next one is predicted.
        everywhere: for the full effect, take it away on every token, not on this one alone.
        target: the next token that losses are of; by default the one that comes next, or at the end of the text the
            likeliest.

    Raises:
        UsageError: no such latent or token, a token that edits leave alone, a `target` that is not one token, or a
            dictionary of several hook points.
    """
    for what, number, end in (("token", pos, len(ids)), ("latent", latent, subject.sae.cfg.d_sae)):
        if not 0 <= number < end:
            raise UsageError(f"there is no {what} {number}: choose 0 to {end - 1}")
    with subject.busy, torch.inference_mode():
        run = _run(subject, torch.tensor([ids]), latent, None if everywhere else pos)
        if not everywhere and (pos == 0 or float(run.x[pos].norm()) > subject.sink_norm):
            raise UsageError(f"token {pos} is the first or an attention sink, which edits leave alone: choose another")
        activation = float(subject.sae.encode(run.x[pos : pos + 1].to(subject.sae.W_dec)).select(latent))
        wanted = _target(subject, ids, pos, target, run.clean[pos])
        write, no_direct = _direct(subject, run, pos, latent, activation)
        return Effects(
            latent=latent,
            pos=pos,
            everywhere=everywhere,
            target=subject.lm.tokenizer.decode([wanted]),
            activation=activation,
            clean_loss=-float(run.clean[pos].double().log_softmax(0)[wanted]),
            full=_change(subject, run.clean[pos], run.without[pos], wanted),
            n_altered=run.n_altered,
            loss_change=_loss_change(run, ids),
            direct=None if write is None else _change(subject, run.clean[pos], run.clean[pos] - write, wanted),
            logit=None if write is None else float(write[wanted] - write.mean()),
            no_direct=no_direct,
        )


class _Run(NamedTuple):
    """A text as the model reads it, and with a latent taken away."""

    x: Float[Tensor, "pos d_in"]
    """At the hook point, before the edit."""
    x_last: Float[Tensor, "pos d_model"]
    """After the last block, as the model is."""
    clean: Float[Tensor, "pos d_vocab"]
    without: Float[Tensor, "pos d_vocab"]
    n_altered: int


def _run(subject: "Subject", tokens: Tensor, latent: int, only: int | None) -> _Run:
    ablation = InterventionConfig(latents=(latent,), op="ablate")
    try:
        edit = Intervention(subject.sae, ablation, sink_norm=subject.sink_norm).begin()
    except ValueError as error:
        raise UsageError(str(error)) from error
    seen: list[Tensor] = []

    def at(h: Tensor, touch: Tensor, continues: bool) -> Tensor:
        seen.append(h[0].float())
        if only is not None:
            touch = touch & (torch.arange(touch.shape[1], device=touch.device) == only)
        return edit(h, touch, continues)

    # Both passes in one way, by hooks: where nothing is changed, all that is told is 0.
    with subject.lm.hooked(_last(subject), lambda x: (seen.append(x[0]), x)[1]):
        clean = subject.lm.logits(tokens)[0].float()
    with subject.edited(at):
        without = subject.lm.logits(tokens)[0].float()
    x_last, x = seen
    return _Run(x, x_last.float(), clean, without, edit.trace.n_altered)


def _last(subject: "Subject") -> HookPoint:
    return subject.lm.hook_point(f"blocks.{subject.lm.n_layers - 1}.hook_resid_post")


def _target(subject: "Subject", ids: list[int], pos: int, target: str | None, logits: Tensor) -> int:
    if target is None:
        return ids[pos + 1] if pos + 1 < len(ids) else int(logits.argmax())
    found = subject.lm.tokenizer.encode(target).ids
    if len(found) != 1:
        raise UsageError(
            f"{target!r} is {len(found)} tokens, and one is asked for: most words are one with the space before them"
        )
    return found[0]


def _change(subject: "Subject", clean: Tensor, without: Tensor, wanted: int) -> Change:
    """From one row of logits to another."""
    p, q = distribution(clean[None]), distribution(without[None], keep_weights=False)
    target = torch.tensor([wanted], device=clean.device)
    before, after = (row.double().softmax(0) for row in (clean, without))
    order = (after - before).argsort(descending=True, stable=True)

    def moved(which: Tensor, sign: int) -> tuple[Moved, ...]:
        return tuple(
            Moved(i, subject.lm.tokenizer.decode([i]), float(before[i]), float(after[i]))
            for i in which.tolist()
            if sign * (after[i] - before[i]) > 0
        )

    return Change(
        loss=float(q.cross_entropy(target) - p.cross_entropy(target)),
        kl=max(float(p.kl_to(q)), 0.0),
        up=moved(order[:N_MOVED], 1),
        down=moved(order.flip(0)[:N_MOVED], -1),
    )


def _loss_change(run: _Run, ids: list[int]) -> np.ndarray:
    out, target = np.full(len(ids), np.nan), torch.tensor(ids[1:], device=run.clean.device)
    clean, without = (distribution(each[:-1], keep_weights=False) for each in (run.clean, run.without))
    out[1:] = (without.cross_entropy(target) - clean.cross_entropy(target)).cpu().numpy()
    return out


def _direct(subject: "Subject", run: _Run, pos: int, latent: int, activation: float) -> tuple[Tensor | None, str]:
    """`[d_vocab]` what the latent's write adds to the logits after `pos`; or None, and why that cannot be told."""
    row, W_O = subject.sae.W_dec[latent : latent + 1].detach().float(), subject.lm.head_outputs(subject.hook)
    if W_O is not None:
        row = through_heads(row.cpu(), W_O.cpu()).rows
    elif not subject.hook.in_residual_basis:
        return None, f"{subject.hook.name} is not in the residual stream's basis, so the unembedding cannot read it"
    U = subject.lm.unembedding().float()
    nothing = torch.zeros(1, 1, subject.lm.d_model, dtype=run.x_last.dtype, device=run.x_last.device)
    bias = subject.lm.logits_from(torch.zeros(1, 1, dtype=torch.long), _last(subject), nothing)[0, 0].float()
    ours, theirs = run.x_last[pos].to(U) @ U, (run.clean[pos] - bias).to(U)
    scale = (ours @ theirs) / (ours @ ours)
    if float((theirs - scale * ours).norm()) > LINEAR * float(theirs.norm()):
        return None, "this model's logits are not the final norm's output times the unembedding, so no part adds up"
    return (scale * activation * (row[0].to(U) @ U)).to(run.clean), ""
