"""The Triton kernels, in Triton's interpreter, against dense float64 products.

The interpreter has to be on before triton is imported, so one fresh process runs every case and the tests compare.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

REPO = Path(__file__).parents[2]
FIRST_VERSION = (3, 7)
"""The interpreters of earlier tritons fail on NumPy 2.4; the kernels themselves compile from 3.2 on."""
N, D = 11, 150
LENGTHS = {
    "fixed": [4] * 6,
    "variable": [0, 3, 1, 0, 9, 40, 0],  # both kinds of tile, a second round of the long one, empty rows at both ends
    "nothing_kept": [0, 0, 0],
    "one_latent_everywhere": [2] * 40,
}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
CASES = [*((name, "float32") for name in LENGTHS), *(("variable", dtype) for dtype in DTYPES if dtype != "float32")]
RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Twice the rounding of one result, or what the order of a sum costs, relative to Σ|terms|."""

RUN_CASES = """
import sys
from safetensors.torch import load_file, save_file
from sae import triton_kernels

assert triton_kernels.available()
# clone: an empty tensor of a file starts where the next one does, and the interpreter tells memory by its address
t, out = {name: tensor.clone() for name, tensor in load_file(sys.argv[1]).items()}, {}
for case in {name.split("/")[0] for name in t}:
    values, W, G, indices, offsets = (t[f"{case}/{name}"] for name in "values W G indices offsets".split())
    out[f"{case}/gather_sum"] = triton_kernels.gather_sum(values, W, indices, offsets)
    out[f"{case}/strided"] = triton_kernels.gather_sum(values, W.t().contiguous().t(), indices, offsets)
    out[f"{case}/gather_dot"] = triton_kernels.gather_dot(G, W, indices, offsets)
save_file(out, sys.argv[2])
"""

COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sae import triton_kernels

kernels = [
    (triton_kernels._gather_sum_kernel, {"COLS": 128, "SHORT": 8, "LONG": 32}),
    (triton_kernels._gather_dot_kernel, {"COLS": 128, "ENTRIES": 32}),
]
for kernel, sizes in kernels:
    constants = {"SUM": tl.float32, **sizes}
    types = {
        name: "constexpr" if name in constants
        else "*i64" if name in ("indices", "offsets")
        else "i32" if name.endswith("stride") or name == "d"
        else "*bf16"
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, types, {(kernel.arg_names.index(name),): value for name, value in constants.items()})
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": True})
    print(kernel.arg_names[0], len(compiled.asm["cubin"]))
"""


def skip_without_triton() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: pip install triton (Linux)")
    version = importlib.metadata.version("triton")
    if tuple(int(part) for part in version.split(".")[:2]) < FIRST_VERSION:
        pytest.skip(f"triton {version} is older than {FIRST_VERSION}, whose interpreter is the first to run here")


def run_python(code: str, *args: object, interpret: bool) -> str:
    env = {**os.environ, "PYTHONPATH": str(REPO), "TRITON_INTERPRET": "1" if interpret else "0"}
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, env=env, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Case(NamedTuple):
    """Tensors of one case by name, and its sparse matrix of values as dense float64."""

    tensors: dict[str, torch.Tensor]
    S: torch.Tensor


def make_case(name: str, dtype: torch.dtype) -> Case:
    """Latents 0 and N - 1 are never kept; empty latents and rows appear by LENGTHS."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor(LENGTHS[name])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    row_of = torch.arange(len(lengths)).repeat_interleave(lengths)
    nnz = len(row_of)
    indices = torch.randint(1, N - 1, (nnz,), generator=generator)
    if name == "one_latent_everywhere":
        indices[::2] = 5
    shapes = {"values": (nnz,), "W": (N, D), "G": (len(lengths), D)}
    floats = {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in shapes.items()}
    empty = torch.zeros(len(lengths), N, dtype=torch.float64)
    S = empty.index_put((row_of, indices), floats["values"].double(), accumulate=True)
    return Case({**floats, "indices": indices, "offsets": offsets}, S)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Every kernel's output at every case, by "case dtype/kernel"."""
    skip_without_triton()
    folder = tmp_path_factory.mktemp("kernels")
    cases = {f"{name} {dtype}": make_case(name, DTYPES[dtype]) for name, dtype in CASES}
    save_file({f"{key}/{name}": t for key, case in cases.items() for name, t in case.tensors.items()}, folder / "in.st")
    run_python(RUN_CASES, folder / "in.st", folder / "out.st", interpret=True)
    return load_file(folder / "out.st")


def assert_close(actual: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """`actual` is left @ right up to its dtype's rounding, relative to the sum of the terms' magnitudes."""
    left, right = left.double(), right.double()
    error, scale = (actual.double() - left @ right).abs(), left.abs() @ right.abs()
    assert actual.shape == error.shape
    assert (error <= RELATIVE[actual.dtype] * scale).all()


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_gather_sum_is_the_dense_product(results, name, dtype):
    case = make_case(name, DTYPES[dtype])
    actual = results[f"{name} {dtype}/gather_sum"]
    assert actual.dtype == DTYPES[dtype]
    assert_close(actual, case.S, case.tensors["W"])


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_gather_sum_reads_a_transposed_table(results, name, dtype):
    assert torch.equal(results[f"{name} {dtype}/strided"], results[f"{name} {dtype}/gather_sum"])


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_gather_dot_is_the_dense_product_at_the_kept_entries(results, name, dtype):
    t = make_case(name, DTYPES[dtype]).tensors
    actual = results[f"{name} {dtype}/gather_dot"]
    assert actual.dtype == DTYPES[dtype]
    row_of = torch.arange(len(t["G"])).repeat_interleave(t["offsets"].diff())
    left, right = t["W"].double()[t["indices"]], t["G"].double()[row_of]
    scale = (left * right).abs().sum(1)
    assert ((actual.double() - (left * right).sum(1)).abs() <= RELATIVE[actual.dtype] * scale).all()


def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    skip_without_triton()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert len(run_python(COMPILE, interpret=False).splitlines()) == 2


def test_the_module_imports_without_triton():
    code = "import sys; sys.modules['triton'] = None; from sae import triton_kernels as t; print(t.available())"
    assert run_python(code, interpret=False).strip() == "False"
