"""How well a training run explains held-out activations, against SAELens and sparsify: FVU at equal L0.

Run from anywhere, after `sh bench/peers/build.sh`: `python bench/train_quality.py [PATTERN …]`. Patterns such as
`topk*` choose by name: these are measured anew, and the others' figures stay as they were. Activations are SmolLM2's as
the demo has them, normal tokens only; held out are whole documents. All sides see the same batches in the same order;
each seed gives an order and an initialisation. FVU is Σ‖x − x̂‖² / Σ‖x − mean(x)‖² in float64 everywhere, of the SAE as
it is used after training. Where L0 is not fixed, the project trains at several settings, and log FVU is read off at the
peer's log L0.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activations.harvest import harvest
from activations.reader import Activations
from app.recipes import smollm2
from bench.harness import Figure, main, table, write
from bench.peers.worker import Worker, worker
from bench.render import DETAIL, RESULTS
from bench.sides import N_THREADS
from sae import VARIANTS
from sae.metrics import evaluate
from sae.train import TrainConfig, train
from store.files import read_json
from store.run import provenance

D_SAE, K = 2304, 32
BATCH, N_STEPS = 512, 300
SEEDS = (0, 1, 2)
LR = 3e-3
"""Where all sides are given one: of 1e-3, 3e-3 and 6e-3 the best for SAELens in runs so short, or next to it."""
SHORT = round(0.05 * N_STEPS)
"""Steps of warm-up, and of silence after which a latent is dead, as the project has them by default."""
SAME_L0 = 0.02
"""How far apart L0 may be, as a share, for two FVU to be compared as they are."""
ONE_RATE = "one rate"
RATES: dict[str, dict[str, dict[str, Any]]] = {
    # SAELens: Adam, 3e-4 throughout, dead after 1,000 steps; sparsify: schedule-free signum, 5e-3 / sqrt(d_sae / 2^14).
    "own rates": {"monosem": {}, "saelens": {}, "sparsify": {}},
    ONE_RATE: {
        "monosem": {"lr": LR},
        # at its default of 1,000 steps nothing would be dead in a run this short, and its AuxK would never act
        "saelens": {
            "lr": LR,
            "lr_warm_up_steps": SHORT,
            "lr_decay_steps": round(0.2 * N_STEPS),
            "dead_feature_window": SHORT,
        },
        # its Adam's rate falls linearly as soon as it has risen
        "sparsify": {"optimizer": "adam", "lr": LR, "lr_warmup_steps": SHORT},
    },
}
"""Each library's documented defaults; and one peak rate, with the project's warm-up and decay where they can be had."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A variant that both sides have."""

    variant: str
    """In `sae.VARIANTS`."""
    peer: str
    """Its worker is `bench/peers/PEER_quality.py`."""
    peer_variant: str
    settings: tuple[dict[str, Any], ...] = ({"k": K},)
    """The project's, but for the widths; several where the peer's L0 has to be met."""
    peer_settings: dict[str, Any] = field(default_factory=lambda: {"k": K})
    rates: tuple[str, ...] = (ONE_RATE,)
    """Names in `RATES`."""
    reach: str = "<= 1.0"
    """Of the project's FVU over the peer's, mean over seeds, where both have one optimiser and rate; at rates of their
    own it is only told."""

    def title(self, rates: str) -> str:
        """What the ratio is called."""
        return f"{self.variant} FVU over {self.peer}'s at equal L0, {rates}"


NEAR_K = tuple({"k": k} for k in (28, 32, 36))
"""A threshold learned in training keeps somewhat more or fewer on other rows."""
NORMALISED = {"normalize_activations": "expected_average_only_in"}
"""Coefficients of SAELens are for data of this scale."""
CASES = (
    Case(variant="topk", peer="saelens", peer_variant="topk", rates=tuple(RATES)),
    Case(variant="topk", peer="sparsify", peer_variant="topk", rates=tuple(RATES)),
    Case(variant="batch_topk", peer="saelens", peer_variant="batchtopk", settings=NEAR_K),
    Case(
        variant="matryoshka",
        peer="saelens",
        peer_variant="matryoshka_batchtopk",
        settings=NEAR_K,
        peer_settings={"k": K, "matryoshka_widths": [D_SAE >> n for n in range(4, -1, -1)]},
    ),
    Case(
        variant="jumprelu",
        peer="saelens",
        peer_variant="jumprelu",
        settings=tuple({"target_l0": float(l0)} for l0 in (16, 24, 32, 48, 64)),
        # at its default bandwidth of 0.05 its L0 stays above 150 in runs so short
        peer_settings={
            "jumprelu_bandwidth": 0.5,
            "jumprelu_init_threshold": 0.5,
            "l0_coefficient": 1.0,
            "l0_warm_up_steps": SHORT,
            **NORMALISED,
        },
    ),
    Case(
        variant="relu",
        peer="saelens",
        peer_variant="standard",
        settings=tuple({"l1_coefficient": l1} for l1 in (2.0, 2.5, 3.0, 3.5, 4.0)),
        peer_settings={"l1_coefficient": 4.0, "l1_warm_up_steps": SHORT, **NORMALISED},
    ),
    Case(
        variant="gated",
        peer="saelens",
        peer_variant="gated",
        settings=tuple({"l1_coefficient": l1} for l1 in (3.0, 4.0, 5.0, 6.5)),
        peer_settings={"l1_coefficient": 5.0, "l1_warm_up_steps": SHORT, **NORMALISED},
    ),
)


@dataclass(frozen=True)
class Trained:
    """One training run, measured on held-out rows."""

    fvu: float
    l0: float
    dead: float
    """Share of latents active in no held-out row."""
    seconds: float


@dataclass(frozen=True)
class Pairing:
    """Both sides with one seed."""

    peer: Trained
    ours: tuple[Trained, ...]

    @property
    def fvu(self) -> float | None:
        """The project's, at the peer's L0; None where its runs do not reach that."""
        return fvu_at(self.peer.l0, self.ours)


@dataclass(frozen=True)
class Data:
    """The same rows for everyone, as float32 `.npy` files."""

    d_in: int
    rows: dict[int, Path]
    """By seed: all batches, one after the other."""
    heldout: Path


def measure() -> bool:
    """What the patterns choose; without one, everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="names of ratios, with * and ?")
    parser.add_argument("--runs", type=Path, help="keep the harvest here; by default it is thrown away")
    args = parser.parse_args()
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(args.runs or Path(folder) / "runs", Path(folder))
        found = dict(compared(args.patterns or ["*"], data, Path(folder)))
    settings = {"n_threads": N_THREADS, "d_sae": D_SAE, "batch": BATCH, "n_steps": N_STEPS, "seeds": SEEDS}
    commit = provenance()["commit"]
    runs = {
        name: {"commit": commit, "figures": [asdict(f) for f in figures], "pairs": [asdict(p) for p in pairings]}
        for name, (pairings, figures) in found.items()
    }
    runs = with_earlier(runs, settings)
    figures = [
        Figure(**{k: f[k] for k in ("name", "value", "unit", "reach")}) for r in runs.values() for f in r["figures"]
    ]
    return write("train_quality", figures, **settings, rates=RATES, cases=[asdict(case) for case in CASES], runs=runs)


def with_earlier(runs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The runs, and those of other cases that were made before under the same settings; each tells its commit."""
    path = RESULTS / "train_quality.json"
    earlier = read_json(path)["settings"] if path.exists() else {}
    same = all(earlier.get(name) == json.loads(json.dumps(value)) for name, value in settings.items())
    merged = {**(earlier.get("runs", {}) if same else {}), **runs}
    titles = [case.title(rates) for case in CASES for rates in case.rates]
    return {title: merged[title] for title in titles if title in merged}


def prepare(root: Path, folder: Path) -> Data:
    """Harvest, and lay the rows out."""
    activations = Activations(harvest(smollm2().harvest, root))
    heldout = folder / "heldout.npy"
    np.save(heldout, torch.cat(list(activations.rows("heldout").in_order())).numpy())
    rows = {seed: lay_out(activations, seed, folder / f"rows-{seed}.npy") for seed in SEEDS}
    return Data(activations.d_in, rows, heldout)


def lay_out(activations: Activations, seed: int, path: Path) -> Path:
    """All batches of a seed in one file, in the order in which the project's own reader shuffles them."""
    shape = (N_STEPS * BATCH, activations.d_in)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    batches = activations.rows("train").shuffled(BATCH, seed)
    for first in range(0, len(file), BATCH):
        file[first : first + BATCH] = next(batches).numpy()
    batches.close()
    file.flush()
    return path


def compared(
    patterns: Sequence[str], data: Data, folder: Path
) -> Iterator[tuple[str, tuple[list[Pairing], list[Figure]]]]:
    """Case by case, each printed as it comes, for many minutes pass until the end."""
    chosen = [
        (case, rates) for case in CASES for rates in case.rates if any(fnmatch(case.title(rates), p) for p in patterns)
    ]
    with ExitStack() as stack:
        job = {"heldout": str(data.heldout), "n_threads": N_THREADS}
        peers = {
            name: stack.enter_context(worker(f"{name}_quality.py", job, folder / f"{name}.log"))
            for name in {case.peer for case, _ in chosen}
        }
        for case, rates in chosen:
            pairings = [pairing(case, rates, seed, data, peers[case.peer]) for seed in SEEDS]
            found = figures_of(case, rates, pairings)
            print(table(found, {}), flush=True)
            yield case.title(rates), (pairings, found)


def pairing(case: Case, rates: str, seed: int, data: Data, peer: Worker) -> Pairing:
    """One seed on both sides."""
    request = {
        "variant": case.peer_variant,
        "settings": case.peer_settings,
        "d_sae": D_SAE,
        "rows": str(data.rows[seed]),
        "batch": BATCH,
        "seed": seed,
        "train": RATES[rates][case.peer],
    }
    theirs = Trained(**peer.ask(request))
    ours = tuple(trained(case.variant, settings, rates, seed, data) for settings in case.settings)
    return Pairing(theirs, ours)


def trained(variant: str, settings: dict[str, Any], rates: str, seed: int, data: Data) -> Trained:
    """One run of the project's."""
    sae_cls = VARIANTS[variant]
    sae = sae_cls(sae_cls.config_cls(d_in=data.d_in, d_sae=D_SAE, **settings))
    rows = np.load(data.rows[seed], mmap_mode="r")
    started = perf_counter()
    for _ in train(sae, batched(rows), TrainConfig(n_steps=N_STEPS, seed=seed, **RATES[rates]["monosem"])):
        pass
    seconds = perf_counter() - started
    found = evaluate(sae, torch.from_numpy(np.load(data.heldout)).split(BATCH))
    assert found.fvu is not None
    assert found.l0 is not None
    assert found.dead_fraction is not None
    return Trained(found.fvu, found.l0, found.dead_fraction, seconds)


def batched(rows: np.ndarray) -> Iterator[Tensor]:
    """Consecutive batches, copied out of the file."""
    return (torch.from_numpy(rows[first : first + BATCH].copy()) for first in range(0, len(rows), BATCH))


def fvu_at(l0: float, runs: Sequence[Trained]) -> float | None:
    """FVU at an L0, log FVU being a straight line over log L0 between neighbouring runs; None outside of them."""
    for run in runs:
        if abs(run.l0 / l0 - 1) <= SAME_L0:
            return run.fvu
    ordered = sorted(runs, key=lambda run: run.l0)
    for low, high in pairwise(ordered):
        if low.l0 <= l0 <= high.l0:
            share = math.log(l0 / low.l0) / math.log(high.l0 / low.l0)
            return math.exp((1 - share) * math.log(low.fvu) + share * math.log(high.fvu))
    return None


def figures_of(case: Case, rates: str, pairings: Sequence[Pairing]) -> list[Figure]:
    """Means over seeds; where no seed's runs reach the peer's L0 there is no ratio, and the count of those misses."""
    of = f"{case.variant}, {rates}"
    peers = [pairing.peer for pairing in pairings]
    ours = [run for pairing in pairings for run in pairing.ours]
    met = [(pairing.fvu, pairing.peer.fvu) for pairing in pairings if pairing.fvu is not None]
    ratios = (
        [
            Figure(
                case.title(rates),
                mean(own / theirs for own, theirs in met),
                "ratio",
                case.reach if rates == ONE_RATE else None,
            )
        ]
        if met
        else []
    )
    fvus = [Figure(f"FVU beside {case.peer} {of}", mean(own for own, _ in met), "")] if met else []
    return [
        *ratios,
        Figure(f"seeds whose L0 is not met, {case.peer} {of}", len(pairings) - len(met), "seeds", "== 0"),
        Figure(f"FVU of {case.peer} {of}", mean(run.fvu for run in peers), ""),
        *fvus,
        Figure(f"L0 of {case.peer} {of}", mean(run.l0 for run in peers), "latents"),
        Figure(f"dead latents of {case.peer} {of}", mean(run.dead for run in peers), "share"),
        Figure(f"dead latents beside {case.peer} {of}", mean(run.dead for run in ours), "share"),
        Figure(f"{DETAIL}{case.peer} {of}", mean(run.seconds for run in peers), "s"),
        Figure(f"{DETAIL}monosem beside {case.peer} {of}", mean(run.seconds for run in ours), "s"),
    ]


if __name__ == "__main__":
    main(measure)
