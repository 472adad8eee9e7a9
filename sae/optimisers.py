"""Optimisers, all from libraries: Adam and Muon are torch's, schedule-free Adam is its authors' own.

The matrices' steps have no unit; vectors in units of x are stepped in the data's unit, so that training does not depend
on the data's scale.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sae.encoder import EncoderSAE, to_unit_norm_

Groups = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class AdamSettings:
    """What Adam and its relatives are told."""

    betas: tuple[float, float]
    eps: float


def adam(groups: Groups, settings: AdamSettings) -> list[Optimizer]:
    """Kingma & Ba 2015, arXiv:1412.6980."""
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    return [torch.optim.Adam(groups, betas=settings.betas, eps=settings.eps, fused=fused)]


def muon(groups: Groups, settings: AdamSettings) -> list[Optimizer]:
    """Matrices: Jordan et al. 2024, in steps as large as Adam's (Liu et al. 2025, arXiv:2502.16982). Vectors: Adam."""
    matrices = [group for group in groups if group["params"][0].ndim == 2]
    vectors = [group for group in groups if group["params"][0].ndim < 2]
    first = torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    return [first, *adam(vectors, settings)]


def schedule_free(groups: Groups, settings: AdamSettings) -> list[Optimizer]:
    """Defazio et al. 2024, arXiv:2405.15682: averages instead of a decay; give it decay=0.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    try:
        from schedulefree import AdamWScheduleFree
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "optimiser=schedule_free needs the package schedulefree: pip install 'monosem[schedulefree]'"
        ) from error
    return [AdamWScheduleFree(groups, betas=settings.betas, eps=settings.eps)]


OPTIMISERS: dict[str, Callable[[Groups, AdamSettings], list[Optimizer]]] = {
    "adam": adam,
    "muon": muon,
    "schedule_free": schedule_free,
}
"""Every optimiser by name."""


class Optimisers:
    """The optimisers of one run as one; its state is tensors by name, to be written down."""

    def __init__(self, name: str, sae: EncoderSAE, settings: AdamSettings) -> None:
        self._sae = sae
        named = {key: p for key, p in sae.named_parameters() if p.requires_grad}
        self._turned = {key for key, p in named.items() if not p.is_contiguous()}
        # The same memory as rows that lie one after the other: fused Adam copies what does not, at thrice its cost.
        self._stepped = {key: nn.Parameter(p.detach().t()) if key in self._turned else p for key, p in named.items()}
        self._groups = self._grouped(settings)
        self._all: Sequence[Optimizer] = OPTIMISERS[name](self._groups, settings)
        self._evaluating(True)

    def zero_grad(self) -> None:
        """Forget the last step's gradients, and go to where the next one is taken."""
        self._evaluating(False)
        for optimiser in self._all:
            optimiser.zero_grad(set_to_none=True)
        self._sae.zero_grad(set_to_none=True)

    def step(self, lr: float, max_norm: float | None = None) -> None:
        """One step, each group in its unit, on gradients scaled down to `max_norm`; afterwards parameters are what is
        to be evaluated."""
        for name, parameter in self._sae.named_parameters():
            if name in self._stepped and parameter.grad is not None:
                self._stepped[name].grad = parameter.grad.t() if name in self._turned else parameter.grad
        if max_norm is not None:
            self._clip_gradients(max_norm)
        for optimiser in self._all:
            for group in optimiser.param_groups:
                group["lr"] = lr * group["pace"]
            optimiser.step()
        self._evaluating(True)

    def constrain(self) -> None:
        """Keep to unit norm what else stands for decoder rows: schedule-free Adam steps from a set of its own."""
        z = self._state(self._stepped["W_dec"]).get("z") if self._sae.cfg.decoder_norm == "unit" else None
        if z is not None:
            to_unit_norm_(z)

    def forget(self, latents: Tensor) -> None:
        """Begin anew with some latents' weights: clear what is remembered of them."""
        for name, axis in self._sae.latent_axis.items():
            if name not in self._stepped:
                continue
            parameter = self._stepped[name]
            axis = 1 - axis if name in self._turned else axis
            for key, value in self._state(parameter).items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # `z` is no memory but weights
                    now = parameter.detach().index_select(axis, latents)
                    value.index_copy_(axis, latents, now if key == "z" else torch.zeros_like(now))

    def tensors(self) -> dict[str, Tensor]:
        """All that a run needs to go on, by name."""
        found: dict[str, Tensor] = {}
        for name, parameter in self._stepped.items():
            for key, value in self._state(parameter).items():
                found[f"{name}.{key}"] = (
                    value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
                )
        for number, group in enumerate(self._param_groups()):
            for key, value in _numbers(group).items():
                found[f"group{number}.{key}"] = torch.tensor(value, dtype=torch.float64)
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `tensors`."""
        for name, parameter in self._stepped.items():
            owner = self._owner(parameter)
            for key in [key for key in tensors if key.rpartition(".")[0] == name]:
                value = tensors[key].clone()
                # fused kernels want the count of steps on the device as well
                on_device = value.ndim > 0 or owner.defaults.get("fused")
                owner.state[parameter][key.rpartition(".")[2]] = value.to(parameter.device) if on_device else value
        for number, group in enumerate(self._param_groups()):
            for key, value in _numbers(group).items():
                group[key] = type(value)(tensors[f"group{number}.{key}"].item())

    def _grouped(self, settings: AdamSettings) -> Groups:
        """Matrices, vectors without a unit, and vectors in units of x; `unit` is what a group's gradients are in, and
        `pace` the length of its steps."""
        in_units, unit = set(self._sae.scaled), self._sae.unit.item()
        groups: dict[tuple[int, float, float], list[nn.Parameter]] = {}
        for name, parameter in self._stepped.items():
            size = unit if name in in_units else 1.0
            key = (min(parameter.ndim, 2), size, size * self._sae.speeds.get(name, 1.0))
            groups.setdefault(key, []).append(parameter)
        return [
            # a gradient per unit of x is as many times smaller, and what is added to its size has to be as well
            {"params": params, "unit": key[1], "pace": key[2], "lr": 0.0}
            | ({"eps": settings.eps / key[1]} if key[0] == 1 else {})
            for key, params in groups.items()
        ]

    def _clip_gradients(self, max_norm: float) -> None:
        """Scale gradients down to `max_norm`, each group measured in its own unit. No device sync."""
        gradients = [(p.grad, group["unit"]) for group in self._groups for p in group["params"] if p.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(g) * unit for g, unit in gradients])
        factor = (max_norm / torch.linalg.vector_norm(norms)).clamp(max=1.0)
        for gradient, _ in gradients:
            gradient.mul_(factor)

    def _owner(self, parameter: nn.Parameter) -> Optimizer:
        return next(o for o in self._all if any(parameter is p for g in o.param_groups for p in g["params"]))

    def _state(self, parameter: nn.Parameter) -> dict[str, Any]:
        return self._owner(parameter).state[parameter]

    def _param_groups(self) -> Groups:
        return [group for optimiser in self._all for group in optimiser.param_groups]

    def _evaluating(self, on: bool) -> None:
        """Schedule-free optimisers hold two sets of weights: one to step from, one to use."""
        for optimiser in self._all:
            change = getattr(optimiser, "eval" if on else "train", None)
            if change is not None:
                change()


def _numbers(group: dict[str, Any]) -> dict[str, float]:
    """What a group counts or remembers."""
    return {key: value for key, value in group.items() if isinstance(value, int | float)}
