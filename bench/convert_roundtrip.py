"""How closely converted checkpoints reconstruct what the library that wrote them does: in float32, row by row.

Run from anywhere, after `sh bench/peers/build.sh`: `python bench/convert_roundtrip.py [PATTERN …]`; patterns such as
`saelens*` choose cases by name. Each library trains and saves its own, small, and records its x_hat of the test rows;
what is read here has to make the same. Then the project's variants go to the library, which opens them, reconstructs
and saves them again, and come back. `--fixtures` makes the few kilobytes that the tests read instead.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.harness import Figure, main, write
from bench.peers.worker import Worker, worker
from bench.render import REPO
from sae import SAE, VARIANTS
from sae.convert import Foreign, read
from sae.convert import write as write_as
from sae.synthetic import Superposition, SuperpositionConfig
from sae.train import TrainConfig, train
from sae.transcoder import TranscoderConfig

REACH = "<= 1e-05"
FIXTURES = REPO / "tests" / "sae" / "foreign"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the dictionaries are, and how long they are trained."""

    d_in: int
    d_sae: int
    n_steps: int
    batch: int
    n_test: int


MEASURED = Size(d_in=32, d_sae=128, n_steps=300, batch=256, n_test=2048)
FIXTURE = Size(d_in=8, d_sae=16, n_steps=60, batch=64, n_test=16)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A checkpoint that a library makes."""

    library: str
    """Its format's name; its worker is `bench/peers/LIBRARY_formats.py`."""
    architecture: str
    """In the library's words."""
    what: str = "as trained"
    settings: dict[str, Any] = field(default_factory=dict)
    """The library's, but for the widths."""
    finish: str = "inference"
    """What is saved, in the words of the worker."""
    fixture: bool = False
    """Whether the tests have one."""

    @property
    def name(self) -> str:
        """Tells it from any other."""
        return f"{self.library} {self.architecture}, {self.what}"


NORM = {"normalize_activations": "expected_average_only_in"}
WHITE = {"normalize_activations": "covariance_whitening"}
NO_B_DEC = {"apply_b_dec_to_input": False}
SAELENS: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 0.3},
    "topk": {"k": 4},
    "batchtopk": {"k": 4},
    "matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [4, 8, 16]},
    "jumprelu": {"jumprelu_init_threshold": 0.3, "jumprelu_bandwidth": 0.5, "l0_coefficient": 0.3},
    "gated": {"l1_coefficient": 0.3},
}
"""What is trained, with settings that make it sparse in so few steps."""


def saelens_cases(architecture: str, settings: dict[str, Any]) -> Iterable[Case]:
    """One architecture in every state of its norms."""

    def case(what: str, finish: str = "inference", fixture: bool = False, **more: Any) -> Case:
        return Case(
            library="saelens",
            architecture=architecture,
            what=what,
            settings={**settings, **more},
            finish=finish,
            fixture=fixture,
        )

    yield case("as trained", fixture=True)
    yield case("b_dec not applied to x", **NO_B_DEC)
    yield case("decoder norms folded", "decoder norms folded")
    if "k" in settings:
        yield case("decoder norms not counted", rescale_acts_by_decoder_norm=False)
    if architecture not in ("batchtopk", "matryoshka_batchtopk"):
        yield case("config of version 5", "older config", fixture=architecture == "topk")
    yield case("activation norm folded", **NORM)
    yield case("activation norm not folded", "checkpoint", fixture=True, **NORM)
    yield case("activation norm not folded, b_dec not applied to x", "checkpoint", **NORM, **NO_B_DEC)
    yield case("whitening folded", **WHITE)
    yield case("whitening not folded", "checkpoint", **WHITE, **NO_B_DEC)


DICTIONARY_LEARNING: dict[str, dict[str, Any]] = {
    "standard": {"l1_penalty": 0.3},
    "standard_april": {"l1_penalty": 0.3},
    "p_anneal": {"initial_sparsity_penalty": 0.3},
    "gated": {"l1_penalty": 0.3},
    "gated_anneal": {"initial_sparsity_penalty": 0.3},
    "topk": {"k": 4},
    "batchtopk": {"k": 4},
    "batchtopk_no_threshold": {"k": 4},
    "matryoshka": {"k": 4},
    "jumprelu": {"target_l0": 4.0},
}
SPARSIFY = ("topk", "topk_free", "topk_multi", "topk_skip", "transcoder", "transcoder_skip")


def dictionary_learning_cases(architecture: str, settings: dict[str, Any]) -> Iterable[Case]:
    """One trainer, with and without rows being normalised for it, which it undoes when it saves."""
    shared = {"library": "dictionary_learning", "architecture": architecture, "settings": settings}
    yield Case(**shared, fixture=True)
    yield Case(**shared, what="rows normalised", finish="normalised")


CASES: tuple[Case, ...] = (
    *(case for architecture, settings in SAELENS.items() for case in saelens_cases(architecture, settings)),
    *(
        Case(library="saelens", architecture=name, what="random", settings={"d_out": 5}, fixture=True)
        for name in ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
    ),
    *(case for name, settings in DICTIONARY_LEARNING.items() for case in dictionary_learning_cases(name, settings)),
    Case(library="dictionary_learning", architecture="standard_new", what="random", fixture=True),
    *(Case(library="sparsify", architecture=name, settings={"k": 4}, fixture=True) for name in SPARSIFY),
)

OURS: dict[str, dict[str, Any]] = {
    "argmax_codes": {"l1_coefficient": 3.0},
    "batch_topk": {"k": 4},
    "batch_topk free": {"k": 4, "decoder_norm": "free"},
    "gated": {"l1_coefficient": 3.0},
    "jumprelu": {"target_l0": 4.0},
    "matryoshka": {"k": 4},
    "matryoshka row": {"k": 4, "keep": "row"},
    "relu": {"l1_coefficient": 3.0},
    "relu free": {"l1_coefficient": 3.0, "decoder_norm": "free"},
    "skip_transcoder": {"k": 4, "d_out": 5, "keep": "batch"},
    "skip_transcoder row": {"k": 4, "d_out": MEASURED.d_in},
    "threshold": {"target_l0": 4.0},
    "topk": {"k": 4},
    "topk free": {"k": 4, "decoder_norm": "free"},
    "transcoder": {"k": 4, "d_out": 5, "keep": "batch"},
    "transcoder row": {"k": 4, "d_out": MEASURED.d_in},
}
"""Variants that a library can hold, by name and what is special about them."""
WRITTEN: dict[str, tuple[str, ...]] = {
    "saelens": tuple(name for name in OURS if not name.endswith("transcoder row")),
    "dictionary_learning": (
        *("batch_topk", "batch_topk free", "gated", "jumprelu", "matryoshka", "relu", "relu free", "threshold"),
        *("topk", "topk free"),
    ),
    "sparsify": ("topk", "topk free", "transcoder row", "skip_transcoder row"),
}
"""Which of them go to which library and back."""


@dataclass(frozen=True)
class Off:
    """How far two reconstructions are apart."""

    name: str
    group: str
    relative: float
    """Largest norm of a row's difference, over the root mean square norm of what the rows should be."""
    absolute: float
    """Largest difference of any entry."""
    l0: float
    """Active latents of a row, here: nothing is shown by latents that never fire."""
    variant: str
    """What it is here."""


def measure() -> bool:
    """What the patterns choose; without one, everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"], metavar="PATTERN", help="names of cases, with * and ?")
    parser.add_argument("--fixtures", action="store_true", help="make tests/sae/foreign anew instead of measuring")
    args = parser.parse_args()
    size = FIXTURE if args.fixtures else MEASURED
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        rows = lay_out(size, folder)
        workers: dict[str, Worker] = {}

        def peer(library: str) -> Worker:
            if library not in workers:
                log = folder / f"{library}.log"
                workers[library] = stack.enter_context(worker(f"{library}_formats.py", {"n_threads": 1}, log))
            return workers[library]

        chosen = [case for case in CASES if any(fnmatch(case.name, pattern) for pattern in args.patterns)]
        if args.fixtures:
            for case in chosen:
                if case.fixture:
                    make(case, FIXTURES / fixture_name(case), size, rows, peer)
            return True
        found = [read_back(case, folder, size, rows, peer) for case in chosen]
        found += [off for library in WRITTEN for off in there_and_back(library, args.patterns, folder, rows, peer)]
    for off in found:
        print(f"{off.name:80} {off.relative:10.2e} {off.absolute:10.2e}  {off.variant}, L0 {off.l0:.1f}")
    return write("convert_roundtrip", figures(found), size=asdict(size), off=[asdict(off) for off in found])


def fixture_name(case: Case) -> str:
    """Of its folder."""
    short = {"activation norm not folded": "unfolded", "config of version 5": "version_5"}
    return "_".join([case.library, case.architecture, *([short[case.what]] if case.what in short else [])])


def lay_out(size: Size, folder: Path) -> dict[str, str]:
    """Rows to train on and rows to compare on, neither centred nor of unit scale, as `.npy` files."""
    generator = torch.Generator().manual_seed(0)
    world = Superposition(SuperpositionConfig(d_in=size.d_in, n_features=2 * size.d_in), generator)
    offset = torch.randn(size.d_in, generator=generator)
    paths: dict[str, str] = {}
    for name, n in (("rows", size.n_steps * size.batch), ("test", size.n_test)):
        paths[name] = str(folder / f"{name}.npy")
        noise = 0.05 * torch.randn(n, size.d_in, generator=generator)
        np.save(paths[name], (3.0 * (world.sample(n, generator).x + noise + offset)).numpy())
    return paths


def make(case: Case, folder: Path, size: Size, rows: dict[str, str], peer: Callable[[str], Worker]) -> Path:
    """Have the library train and save one in `folder`; its answers lie beside its files."""
    folder.mkdir(parents=True, exist_ok=True)
    answers = folder / "answers.safetensors"
    request = {key: value for key, value in asdict(case).items() if key in ("architecture", "settings", "finish")}
    if "matryoshka_widths" in case.settings:
        request["settings"] = {**case.settings, "matryoshka_widths": [size.d_sae >> n for n in (2, 1, 0)]}
    more = {"d_sae": size.d_sae, "batch": size.batch, "seed": 0, "lr": 3e-3}
    peer(case.library).ask({**request, **more, **rows, "folder": str(folder), "answers": str(answers)})
    return answers


def read_back(case: Case, folder: Path, size: Size, rows: dict[str, str], peer: Callable[[str], Worker]) -> Off:
    """The library's checkpoint, read here."""
    own = folder / case.name.replace(" ", "_")
    answers = load_file(make(case, own, size, rows, peer))
    foreign = read(own, case.library)
    group = f"{case.library} {case.architecture} → monosem"
    return compared(case.name, group, foreign.sae, answers["x"], answers["x_hat"])


def there_and_back(
    library: str, patterns: Sequence[str], folder: Path, rows: dict[str, str], peer: Callable[[str], Worker]
) -> Iterable[Off]:
    """The project's, opened by the library, saved by it, and read here again."""
    for name in WRITTEN[library]:
        title = f"monosem {name} → {library}"
        if not any(fnmatch(title, pattern) for pattern in patterns):
            continue
        sae = trained(name, rows)
        there, back = (folder / f"{part}_{library}_{name}".replace(" ", "_") for part in ("there", "back"))
        write_as(there, Foreign(sae, {}, "blocks.1.hook_resid_post", "tiny"), library)
        answers = folder / "answers.safetensors"
        request = {"load": str(there), "resave": str(back), "test": rows["test"], "answers": str(answers)}
        peer(library).ask(request)
        told = load_file(answers)
        yield compared(title, f"monosem → {library}", sae, told["x"], told["x_hat"])
        again = read(back, library).sae
        with torch.no_grad():
            x_hat = sae(told["x"]).x_hat
        yield compared(f"{title} → monosem", f"monosem → {library} → monosem", again, told["x"], x_hat)


def trained(name: str, rows: dict[str, str]) -> SAE:
    """One of the project's own, trained for as long."""
    cls = VARIANTS[name.split()[0]]
    size = MEASURED
    cfg = cls.config_cls(d_in=size.d_in, d_sae=size.d_sae, **OURS[name])
    sae = cls(cfg)
    x = torch.from_numpy(np.load(rows["rows"]))
    batches: Iterable[Any] = x.split(size.batch)
    if isinstance(cfg, TranscoderConfig):
        mixed = torch.relu(x @ torch.randn(cfg.d_in, cfg.width_out, generator=torch.Generator().manual_seed(1)))
        batches = zip(x.split(size.batch), mixed.split(size.batch), strict=True)
    for _ in train(sae, batches, TrainConfig(n_steps=size.n_steps, lr=3e-3, init_rows=4 * size.batch)):
        pass
    return sae


@torch.no_grad()
def compared(name: str, group: str, sae: SAE, x: Tensor, wanted: Tensor) -> Off:
    """What the dictionary makes of the rows, and what it should, in float64."""
    found = sae(x)
    difference, wanted = found.x_hat.double() - wanted.double(), wanted.double()
    relative = difference.norm(dim=1).max() / wanted.square().sum(dim=1).mean().sqrt()
    l0 = (found.latents.values != 0).sum().item() / len(x)
    variant = next(name for name, cls in VARIANTS.items() if type(sae) is cls)
    return Off(name, group, relative.item(), difference.abs().max().item(), l0, variant)


def figures(found: Sequence[Off]) -> list[Figure]:
    """The worst of each group."""
    told: list[Figure] = []
    for group, members in groupby(sorted(found, key=lambda off: off.group), key=lambda off: off.group):
        of = list(members)
        title = f"{group}, worst of {len(of)}"
        told.append(Figure(f"{title}, relative to the norm of x_hat", max(off.relative for off in of), "", REACH))
        told.append(Figure(f"{title}, largest difference of an entry", max(off.absolute for off in of), ""))
    return told


if __name__ == "__main__":
    main(measure)
