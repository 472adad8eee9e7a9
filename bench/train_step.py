"""Training steps: against the same variant's in SAELens and in sparsify, and against what no step can do without.

Run from anywhere, after `sh bench/peers/build.sh`: `python bench/train_step.py [PATTERN …]`. Patterns such as
`topk*4608*` choose by name: a few figures are printed, only all are written. Both sides of a comparison start from one
initialisation and see the same rows; that they compute the same is checked on the first step. What a peer's step holds,
its worker script says. The floor is the encoder product and the variant's own selection.
"""

import argparse
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.harness import MIN_REPEATS, Figure, Paired, main, paired, table, write
from bench.peers.worker import worker
from bench.sides import N_THREADS
from sae import VARIANTS, EncoderSAE, JumpReLU, MatryoshkaConfig, TopK, TopKConfig
from sae.ksparse import HINT
from sae.largest import above, batch_largest
from sae.train import Step, TrainConfig, train

D_IN, K = 576, 32
SHAPES: dict[str, tuple[int, int]] = {"4096x4608": (4096, 4608), "2048x16384": (2048, 16384)}
"""Batch rows and d_sae by name."""
WARMUP = 2
"""The first step initialises, the second meets warm allocators."""
LR = 3e-4
"""On all sides."""
SAME_FVU = 1e-4
"""How far apart two sides' FVU may be on the first step."""
MAX_L0 = 64
"""The figures speak of steps with no more active latents than this."""


class Start(NamedTuple):
    """What every side begins with."""

    x: Tensor
    tensors: dict[str, Tensor]
    """`W_enc b_enc W_dec b_dec`, drawn as the project does."""
    threshold: float
    """The pre-activation that K latents of a row exceed, on average."""
    file: Path
    """All tensors, for the peers."""


class Timed(NamedTuple):
    """Pairs of timings, the figures they give, and what was checked."""

    pair: Paired
    figures: list[Figure]
    checked: dict[str, Any]


Settings = Callable[[Start], dict[str, Any]]
"""Settings of a variant but for its widths."""


def at_k(_: Start) -> dict[str, Any]:
    """The number of latents that are kept."""
    return {"k": K}


@dataclass(frozen=True, kw_only=True)
class Case(ABC):
    """Something to time at every shape."""

    variant: str
    """In `sae.VARIANTS`."""
    reach: dict[str, str]
    """Of the ratio, by shape."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the ratio is called, but for the shape."""

    @abstractmethod
    def timed(self, shape: str, start: Start, n_repeats: int) -> Timed:
        """Time it."""

    def title(self, shape: str) -> str:
        """The ratio's whole name."""
        return f"{self.name}, {shape}"


@dataclass(frozen=True, kw_only=True)
class Floor(Case):
    """A step over the encoder product and the selection."""

    @property
    def name(self) -> str:
        """For topk the selection is `torch.topk`."""
        return f"{self.variant} step / floor"

    def timed(self, shape: str, start: Start, n_repeats: int) -> Timed:
        """Step, floor, step, floor, …"""
        steps = Steps(self.variant, start, n_repeats + WARMUP)
        pair = paired(steps, lambda: floor(self.variant, steps.sae, start.x), n_repeats, WARMUP)
        check_l0(self.title(shape), steps.taken[-1].l0.item())
        figures = [
            Figure(self.title(shape), pair.ratio, "ratio", self.reach[shape]),
            Figure(f"{self.variant} step, {shape}", pair.median_a, "s"),
            Figure(f"{self.variant} encoder product and selection, {shape}", pair.median_b, "s"),
            Figure(f"{self.variant} training, {shape}", len(start.x) / pair.median_a, "rows/s"),
        ]
        return Timed(pair, figures, {"l0": [steps.taken[0].l0.item(), steps.taken[-1].l0.item()]})


@dataclass(frozen=True, kw_only=True)
class Against(Case):
    """A peer's step over the project's."""

    peer: str
    """Its worker is `bench/peers/PEER_step.py`."""
    peer_variant: str
    """As the peer calls it."""
    peer_settings: Settings = at_k

    @property
    def name(self) -> str:
        """How many times as long the peer takes."""
        return f"{self.variant} step against {self.peer}"

    def timed(self, shape: str, start: Start, n_repeats: int) -> Timed:
        """Peer, project, peer, project, …"""
        n_steps = n_repeats + WARMUP
        job = {
            "variant": self.peer_variant,
            "settings": self.peer_settings(start),
            "start": str(start.file),
            "n_steps": n_steps,
            "lr": LR,
            "n_threads": N_THREADS,
        }
        steps = Steps(self.variant, start, n_steps)
        with worker(f"{self.peer}_step.py", job, start.file.with_suffix(".log")) as peer:
            pair = paired(peer, steps, n_repeats, WARMUP)
            checked = same(self.title(shape), peer.answers, [step.numbers() for step in steps.taken])
        figures = [
            Figure(self.title(shape), pair.ratio, "ratio", self.reach[shape]),
            Figure(f"{self.peer} {self.variant} step, {shape}", pair.median_a, "s"),
            Figure(f"{self.variant} step beside {self.peer}, {shape}", pair.median_b, "s"),
        ]
        return Timed(pair, figures, checked)


def matryoshka_widths(start: Start) -> dict[str, Any]:
    """SAELens asks for the prefixes that are the project's default."""
    d_sae = len(start.tensors["b_enc"])
    return {"k": K, "matryoshka_widths": list(MatryoshkaConfig(d_in=D_IN, d_sae=d_sae, k=K).fixed)}


OURS: dict[str, Settings] = {
    "topk": at_k,
    "batch_topk": at_k,
    "matryoshka": at_k,
    "jumprelu": lambda _: {"target_l0": float(K)},
}
"""The project's settings by name in `sae.VARIANTS`."""
Selection = Callable[[Any, Tensor], Any]
SELECTIONS: dict[str, Selection] = {
    "topk": lambda sae, pre: pre.topk(sae.cfg.k, dim=1, sorted=False),
    "batch_topk": lambda sae, pre: batch_largest(lambda: iter([pre]), len(pre), K * len(pre), HINT * sae.threshold),
    "matryoshka": lambda sae, pre: batch_largest(lambda: iter([pre]), len(pre), K * len(pre), HINT * sae.threshold),
    "jumprelu": lambda sae, pre: pre.flatten()[above(pre, sae.threshold - sae.epsilon / 2).indices],
}
"""What chooses latents from pre-activations that are there: torch's own top-k, or the project's selection."""
FIVEFOLD = dict.fromkeys(SHAPES, ">= 5")
CASES: tuple[Case, ...] = (
    Floor(variant="topk", reach=dict.fromkeys(SHAPES, "<= 1.2")),
    Against(
        variant="topk",
        peer="saelens",
        peer_variant="topk",
        reach={"4096x4608": ">= 5.3", "2048x16384": ">= 6.3"},
    ),
    Against(
        variant="topk",
        peer="sparsify",
        peer_variant="topk",
        reach={"4096x4608": ">= 1.5", "2048x16384": ">= 1.6"},
    ),
    Floor(variant="batch_topk", reach=dict.fromkeys(SHAPES, "<= 1.6")),
    Against(variant="batch_topk", peer="saelens", peer_variant="batchtopk", reach=FIVEFOLD),
    Floor(variant="jumprelu", reach=dict.fromkeys(SHAPES, "<= 1.6")),
    Against(
        variant="jumprelu",
        peer="saelens",
        peer_variant="jumprelu",
        peer_settings=lambda start: {"jumprelu_init_threshold": start.threshold},
        reach=FIVEFOLD,
    ),
    Floor(variant="matryoshka", reach=dict.fromkeys(SHAPES, "<= 1.6")),
    Against(
        variant="matryoshka",
        peer="saelens",
        peer_variant="matryoshka_batchtopk",
        peer_settings=matryoshka_widths,
        reach=FIVEFOLD,
    ),
)


def measure() -> bool:
    """What the patterns choose; without one, everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="names of ratios, with * and ?")
    parser.add_argument("--repeats", type=int, default=7, help=f"pairs of timings, at least {MIN_REPEATS}")
    args = parser.parse_args()
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as folder:
        found = dict(timings(args.patterns or ["*"], args.repeats, Path(folder)))
    figures = [figure for one in found.values() for figure in one.figures]
    pairs = {name: one.pair for name, one in found.items()}
    if args.patterns:
        print(table(figures, pairs))
        return all(figure.holds is not False for figure in figures)
    checked = {name: one.checked for name, one in found.items()}
    return write("train_step", figures, n_threads=N_THREADS, d_in=D_IN, k=K, lr=LR, checked=checked, **pairs)


def timings(patterns: list[str], n_repeats: int, folder: Path) -> Iterator[tuple[str, Timed]]:
    """Shape by shape, each printed as it comes, for minutes pass until the end."""
    for shape in SHAPES:
        chosen = [case for case in CASES if any(fnmatch(case.title(shape), pattern) for pattern in patterns)]
        start = draw(shape, folder) if chosen else None
        for case in chosen:
            assert start is not None
            found = case.timed(shape, start, n_repeats)
            print(table([], {case.title(shape): found.pair}), flush=True)
            yield case.title(shape), found


def draw(shape: str, folder: Path) -> Start:
    """Standard normal rows and the project's initialisation from them, the same every time."""
    batch, d_sae = SHAPES[shape]
    x = torch.randn(batch, D_IN, generator=torch.Generator().manual_seed(0))
    sae = TopK(TopKConfig(d_in=D_IN, d_sae=d_sae, k=K))
    sae.initialise(x, torch.Generator().manual_seed(0))
    tensors = {name: tensor.detach().contiguous() for name, tensor in sae.state_dict().items()}
    file = folder / f"{shape}.safetensors"
    save_file({**tensors, "x": x}, file)
    threshold = pre_acts(sae, x - tensors["b_dec"]).flatten().topk(K * batch).values.min().item()
    return Start(x, tensors, threshold, file)


class Steps:
    """The project's training; every call is one step."""

    def __init__(self, variant: str, start: Start, n_steps: int) -> None:
        sae_cls = VARIANTS[variant]
        widths = {"d_in": D_IN, "d_sae": len(start.tensors["b_enc"])}
        sae = sae_cls(sae_cls.config_cls(**widths, **OURS[variant](start)))
        assert isinstance(sae, EncoderSAE)
        self.sae = sae
        self.sae.load_state_dict(start.tensors, strict=False)
        if isinstance(self.sae, JumpReLU):
            self.sae.log_threshold.data.fill_(math.log(start.threshold))
        # a whole run of silence before AuxK starts: this is the step of an SAE without dead latents, as the peers' are
        cfg = TrainConfig(
            n_steps=n_steps,
            lr=LR,
            warmup=0,
            decay=0,
            initialise=False,
            normalise=False,  # rows are standard normal: thresholds are to be exactly the peer's
            init_rows=len(start.x),
            dead_after_fraction=1.0,
        )
        self.taken: list[Step] = []
        self._steps = train(self.sae, repeat(start.x), cfg)

    def __call__(self) -> None:
        """One more."""
        self.taken.append(next(self._steps))


@torch.no_grad()
def pre_acts(sae: EncoderSAE, x: Tensor) -> Tensor:
    """The encoder product."""
    return torch.addmm(sae.b_enc, x, sae.W_enc)


@torch.no_grad()
def floor(variant: str, sae: EncoderSAE, x: Tensor) -> None:
    """The part of a step that no trainer of the variant avoids."""
    SELECTIONS[variant](sae, pre_acts(sae, x))


def same(name: str, theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    """First and last FVU and L0 of both sides.

    Raises:
        RuntimeError: they differ on the first step, or more latents are active than the figures speak of.
    """
    if not abs(theirs[0]["fvu"] - ours[0]["fvu"]) <= SAME_FVU:
        raise RuntimeError(
            f"{name}: FVU is {theirs[0]['fvu']} and {ours[0]['fvu']} on the first step: not the same step"
        )
    for side in (theirs, ours):
        check_l0(name, side[-1]["l0"])
    return {
        side: {key: [steps[0][key], steps[-1][key]] for key in ("fvu", "l0")}
        for side, steps in (("peer", theirs), ("monosem", ours))
    }


def check_l0(name: str, l0: float) -> None:
    """Raise a RuntimeError where too many latents are active."""
    if l0 > MAX_L0:
        raise RuntimeError(f"{name}: {l0:.1f} latents are active, more than {MAX_L0}: choose other settings")


if __name__ == "__main__":
    main(measure)
