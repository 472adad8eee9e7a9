"""What training costs besides time: memory of a step beyond weights and optimiser, and the import of `sae`.

Run from the repository root: `python bench/train_footprint.py`. Memory is the peak of the process during a step, over
what it held before: freed memory is given back first, so that all a step takes is counted, gradients included.
"""

import ctypes
import json
import subprocess
import sys
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch

from bench.harness import Figure, main, paired, write
from sae import VARIANTS, EncoderSAE
from sae.train import TrainConfig, train

D_IN = 576
SIZES = {"4096x4608": (4096, 4608), "2048x16384": (2048, 16384)}
"""Batch rows and d_sae by name."""
SETTINGS: dict[str, dict[str, Any]] = {
    "topk": {"k": 32},
    "batch_topk": {"k": 32},
    "jumprelu": {"target_l0": 32.0},
    "matryoshka": {"k": 32},
}
OVER = 1.2
"""Times batch · d_sae · 4 bytes: a fifth more than the pre-activations alone."""
STATUS = Path("/proc/self/status")


def measure() -> bool:
    """Every variant at every size, each in a process of its own, and the import."""
    found = [
        Figure(f"{variant} step memory / pre-activations, {size}", in_process(variant, size), "ratio", f"<= {OVER}")
        for size in SIZES
        for variant in SETTINGS
    ]
    imports = paired(lambda: run("import torch"), lambda: run("import torch, sae, sae.train"), repeats=7)
    beyond = sorted(b - a for a, b in zip(imports.a, imports.b, strict=True))[len(imports.a) // 2]
    return write("train_footprint", [*found, Figure("import sae beyond torch", beyond, "s", "<= 1.5")], imports=imports)


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def in_process(variant: str, size: str) -> float:
    """Peak bytes of a step over batch · d_sae · 4."""
    command = [sys.executable, "-c", f"from bench.train_footprint import ratio; ratio({variant!r}, {size!r})"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def ratio(variant: str, size: str) -> None:
    """Print it."""
    batch, d_sae = SIZES[size]
    torch.set_num_threads(2)
    x = torch.randn(batch, D_IN, generator=torch.Generator().manual_seed(0))
    cls = VARIANTS[variant]
    sae = cls(cls.config_cls(d_in=D_IN, d_sae=d_sae, **SETTINGS[variant]))
    assert isinstance(sae, EncoderSAE)
    steps = train(sae, repeat(x), TrainConfig(n_steps=10, init_rows=batch, dead_after_fraction=1.0))
    list(islice(steps, 3))
    sae.zero_grad(set_to_none=True)
    before = settle()
    next(steps)
    print(json.dumps((kilobytes("VmHWM") - before) * 1024 / (batch * d_sae * 4)))


def settle() -> int:
    """Give freed memory back and forget the peak; the kilobytes that are left."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return kilobytes("VmRSS")


def kilobytes(name: str) -> int:
    """A line of the process's status."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


if __name__ == "__main__":
    main(measure)
