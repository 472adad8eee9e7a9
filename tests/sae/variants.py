"""Every variant in several settings, small; rows for it; and each loss written dense, for autograd to differentiate."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae import VARIANTS, EncoderSAE, Phase

D_IN, D_SAE, D_OUT = 12, 40, 7

CASES: dict[str, dict[str, Any]] = {
    "argmax_codes": {"l1_coefficient": 2.0},
    "batch_topk": {"k": 4},
    "batch_topk free": {"k": 4, "decoder_norm": "free"},
    "crosscoder": {"k": 4, "site_widths": (5, 7)},
    "crosscoder row": {"k": 4, "site_widths": (2, 3, 7), "keep": "row"},
    "discrete": {"k": 4, "levels": 3},
    "discrete binary batch": {"k": 4, "levels": 1, "keep": "batch"},
    "gated": {"l1_coefficient": 0.5},
    "gated free": {"l1_coefficient": 0.5, "decoder_norm": "free"},
    "jumprelu": {"target_l0": 4.0, "bandwidth": 0.5},
    "jumprelu step": {"target_l0": 4.0, "sparsity": "step", "bandwidth": 0.5, "l0_coefficient": 0.01},
    "jumprelu tanh": {"target_l0": 4.0, "sparsity": "tanh", "bandwidth": 0.5, "decoder_norm": "free"},
    "matryoshka": {"k": 4, "prefixes": (5, 20)},
    "matryoshka row": {"k": 4, "keep": "row"},
    "matryoshka sampled": {"k": 4, "n_sampled": 3},
    "relu": {"l1_coefficient": 0.5},
    "relu free": {"l1_coefficient": 0.5, "decoder_norm": "free"},
    "relu aux": {"l1_coefficient": 0.5, "aux_alpha": 0.1, "k_aux": 3},
    "skip_transcoder": {"k": 4, "d_out": D_OUT},
    "threshold": {"target_l0": 4.0, "bandwidth": 0.5},
    "topk": {"k": 4, "k_aux": 3},
    "topk free": {"k": 4, "decoder_norm": "free"},
    "topk multi": {"k": 4, "multi_topk": 0.125},
    "transcoder": {"k": 4, "d_out": D_OUT},
    "transcoder unit batch": {"k": 4, "d_out": D_OUT, "decoder_norm": "unit", "keep": "batch"},
}
"""Settings by the variant's name and what is special about them."""


def build(case: str) -> EncoderSAE:
    """An untouched SAE."""
    cls = VARIANTS[case.split()[0]]
    sae = cls(cls.config_cls(d_in=D_IN, d_sae=D_SAE, **CASES[case]))
    assert isinstance(sae, EncoderSAE)
    return sae


def rows(n: int = 64, seed: int = 0, width: int = D_IN) -> Tensor:
    """Float64 rows, off centre, and neither of unit scale nor of one scale in all columns."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(1.0, 3.0, width, dtype=torch.float64)
    return 3.0 + scales * torch.randn(n, width, generator=generator, dtype=torch.float64)


def targets(sae: EncoderSAE, n: int = 64, seed: int = 0) -> Tensor | None:
    """What the rows are mapped to; None where that is the rows themselves."""
    if not hasattr(sae.cfg, "d_out"):
        return None
    x = rows(n, seed)
    generator = torch.Generator().manual_seed(99)
    mixed = torch.relu(x @ torch.randn(D_IN, D_OUT, generator=generator, dtype=torch.float64))
    return 5.0 * mixed - 2.0


def batch(sae: EncoderSAE, n: int = 64, seed: int = 0) -> Tensor | tuple[Tensor, Tensor]:
    """Rows as `train` takes them."""
    target = targets(sae, n, seed)
    return rows(n, seed) if target is None else (rows(n, seed), target)


def moved(case: str, seed: int = 3) -> EncoderSAE:
    """An SAE in float64 away from its initial values, so that no gradient is zero by symmetry."""
    generator = torch.Generator().manual_seed(seed)
    sae = build(case).double()
    sae.initialise(rows(), generator, *([targets(sae)] if targets(sae) is not None else []))
    with torch.no_grad():
        for parameter in sae.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.1 * noise)
    sae.constrain_weights()
    return sae


def dense_loss(case: str, sae: EncoderSAE, x: Tensor, phase: Phase, target: Tensor | None) -> Tensor:
    """The loss of a variant written with dense matrices only."""
    return DENSE[case.split()[0]](sae, x, phase, target)


def fvu(target: Tensor, x_hat: Tensor) -> Tensor:
    return (target - x_hat).square().sum() / (target - target.mean(0)).square().sum()


def largest(scores: Tensor, k: int, pool: str) -> Tensor:
    """A mask of each row's k largest, or of the k · rows largest positive ones."""
    if pool == "row":
        return torch.zeros_like(scores).scatter_(1, scores.topk(k).indices, 1.0).bool()
    flat = scores.flatten()
    kept = torch.zeros_like(flat).scatter_(0, flat.topk(k * len(scores)).indices, 1.0).bool()
    return kept.view_as(scores) & (scores > 0)


def norms(sae: EncoderSAE) -> Tensor:
    return sae.W_dec.norm(dim=1) if sae.cfg.decoder_norm == "free" else torch.ones(D_SAE, dtype=x_dtype(sae))


def x_dtype(sae: EncoderSAE) -> torch.dtype:
    return sae.W_dec.dtype


def kept_acts(sae: EncoderSAE, pre: Tensor, weights: Tensor) -> Tensor:
    mask = largest((pre * weights).detach(), sae.cfg.k, sae.cfg.pool)
    return torch.relu(torch.where(mask, pre, 0.0))


def aux(sae: EncoderSAE, x_centred: Tensor, error: Tensor, phase: Phase) -> Tensor | float:
    """α · AuxK over the dead latents; `error` is target − x_hat."""
    if phase.dead is None or not sae.cfg.aux_alpha:
        return 0.0
    dead = torch.zeros(D_SAE, dtype=torch.bool).index_fill(0, phase.dead, True)
    residual = error.detach()
    pre = x_centred.detach() @ sae.W_enc + sae.b_enc
    k_aux = min(sae.cfg.k_aux or D_IN // 2, len(phase.dead))
    mask = largest(pre.detach().masked_fill(~dead, -torch.inf), k_aux, "row")
    off = torch.relu(torch.where(mask, pre, 0.0)) @ sae.W_dec - residual
    return sae.cfg.aux_alpha * off.square().sum() / (residual - residual.mean(0)).square().sum()


def dense_ksparse(sae: EncoderSAE, x: Tensor, phase: Phase, target: Tensor | None) -> Tensor:
    x_centred = x - sae.b_dec
    pre = x_centred @ sae.W_enc + sae.b_enc
    acts = kept_acts(sae, pre, norms(sae))
    x_hat = acts @ sae.W_dec + sae.b_dec
    total = fvu(x, x_hat)
    if getattr(sae.cfg, "multi_topk", 0):
        many = torch.relu(torch.where(largest(pre.detach(), 4 * sae.cfg.k, "row"), pre, 0.0))
        total = total + sae.cfg.multi_topk * fvu(x, many @ sae.W_dec + sae.b_dec)
    return total + aux(sae, x_centred, x - x_hat, phase)


def dense_matryoshka(sae: EncoderSAE, x: Tensor, phase: Phase, target: Tensor | None) -> Tensor:
    x_centred = x - sae.b_dec
    acts = kept_acts(sae, x_centred @ sae.W_enc + sae.b_enc, norms(sae))
    generator = phase.generator.clone_state() if phase.generator else None
    parts = [acts[:, :m] @ sae.W_dec[:m] + sae.b_dec for m in sae.prefixes(generator).tolist()]
    return sum(fvu(x, part) for part in parts) / len(parts) + aux(sae, x_centred, x - parts[-1], phase)


def dense_relu(sae: EncoderSAE, x: Tensor, phase: Phase, target: Tensor | None) -> Tensor:
    x_centred = x - sae.b_dec
    acts = torch.relu(x_centred @ sae.W_enc + sae.b_enc)
    x_hat = acts @ sae.W_dec + sae.b_dec
    l1 = (acts * norms(sae)).sum(1).mean() / (D_IN * sae.unit)
    return fvu(x, x_hat) + sae.cfg.l1_coefficient * phase.sparsity * l1 + aux(sae, x_centred, x - x_hat, phase)


def dense_gated(sae: EncoderSAE, x: Tensor, phase: Phase, target: Tensor | None) -> Tensor:
    z = (x - sae.b_dec) @ sae.W_enc
    gate = z + sae.b_enc
    acts = torch.where(gate > 0, torch.relu(z * sae.r_mag.exp() + sae.b_mag), 0.0)
    l1 = (torch.relu(gate) * norms(sae)).sum(1).mean() / (D_IN * sae.unit)
    frozen = torch.relu(gate) @ sae.W_dec.detach() + sae.b_dec.detach()
    loss = fvu(x, acts @ sae.W_dec + sae.b_dec) + sae.cfg.gate_alpha * fvu(x, frozen)
    return loss + sae.cfg.l1_coefficient * phase.sparsity * l1


def dense_jump(sae: EncoderSAE, x: Tensor, phase: Phase, target: Tensor | None) -> Tensor:
    """Pseudo-gradients as surrogates: what is added is 0 and has the gradient that is wanted."""
    z = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    theta = sae.log_threshold.exp() * sae.unit
    epsilon = sae.cfg.bandwidth * sae.unit
    near = ((z - theta).detach().abs() < epsilon / 2) / epsilon
    on = (z > theta).double()
    acts = z * on - (theta - theta.detach()) * theta.detach() * near
    l0 = (on - (theta - theta.detach()) * near).sum(1).mean()
    mode = getattr(sae.cfg, "sparsity", "target")
    penalty = {
        "target": (l0 / sae.cfg.target_l0 - 1).square(),
        "step": l0,
        "tanh": torch.tanh(getattr(sae.cfg, "tanh_scale", 1.0) / sae.unit * acts * norms(sae)).sum(1).mean(),
    }[mode]
    weight = getattr(sae.cfg, "coefficient", sae.cfg.l0_coefficient) * phase.sparsity
    return fvu(x, acts @ sae.W_dec + sae.b_dec) + weight * penalty


def dense_discrete(sae: EncoderSAE, x: Tensor, phase: Phase, target: Tensor | None) -> Tensor:
    x_centred = x - sae.b_dec
    z = x_centred @ sae.W_enc + sae.b_enc
    mask = largest(z.detach(), sae.cfg.k, sae.cfg.pool) & (z > 0)
    s = sae.log_step.exp() * sae.unit
    ratio = (z / s).detach()
    q = ratio.round().clamp(1, sae.cfg.levels)
    within = (ratio - q).abs() <= 0.5
    slope = q - torch.where(within, ratio, 0.0)
    acts = torch.where(mask, (s * q).detach() + (z - z.detach()) + (s - s.detach()) * slope, 0.0)
    x_hat = acts @ sae.W_dec + sae.b_dec
    return fvu(x, x_hat) + aux(sae, x_centred, x - x_hat, phase)


def dense_mapped(sae: EncoderSAE, x: Tensor, phase: Phase, target: Tensor | None) -> Tensor:
    assert target is not None
    x_centred, wanted = x - sae.x_mean, target / sae.y_scale
    acts = kept_acts(sae, x_centred @ sae.W_enc + sae.b_enc, torch.ones(D_SAE, dtype=x.dtype))
    y_hat = acts @ sae.W_dec + sae.b_dec
    if hasattr(sae, "W_skip"):
        y_hat = y_hat + x_centred @ sae.W_skip
    return fvu(wanted, y_hat) + aux(sae, x_centred, wanted - y_hat, phase)


def dense_crosscoder(sae: EncoderSAE, x: Tensor, phase: Phase, target: Tensor | None) -> Tensor:
    scale = torch.cat([s.expand(w) for s, w in zip(sae.site_scale, sae.cfg.site_widths, strict=True)])
    x = x / scale
    x_centred = x - sae.b_dec
    weights = sum(part.norm(dim=1) for part in sae.W_dec.split(sae.cfg.site_widths, dim=1))
    acts = kept_acts(sae, x_centred @ sae.W_enc + sae.b_enc, weights)
    x_hat = acts @ sae.W_dec + sae.b_dec
    return fvu(x, x_hat) + aux(sae, x_centred, x - x_hat, phase)


DENSE: dict[str, Callable[..., Tensor]] = {
    "argmax_codes": dense_relu,
    "batch_topk": dense_ksparse,
    "crosscoder": dense_crosscoder,
    "discrete": dense_discrete,
    "gated": dense_gated,
    "jumprelu": dense_jump,
    "matryoshka": dense_matryoshka,
    "relu": dense_relu,
    "skip_transcoder": dense_mapped,
    "threshold": dense_jump,
    "topk": dense_ksparse,
    "transcoder": dense_mapped,
}
