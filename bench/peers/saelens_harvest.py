"""SAELens' CacheActivationsRunner as a worker: one line in, one harvest timed, one line out.

Runs in bench/peers/.venv, which has none of the project's code. Loading the model and building the runner are not
timed; the runner's `run()` is, once for each hook point, because one of its caches holds one hook point.
"""

import os
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TQDM_DISABLE", "1")

import sae_lens.cache_activations_runner as saelens
import torch
from answers import read_job, requests, say
from datasets import Dataset, disable_progress_bars
from sae_lens import CacheActivationsRunner, CacheActivationsRunnerConfig
from transformer_lens import loading_from_pretrained


class StubModel(torch.nn.Module):
    """A forward pass that costs nothing: the same activations for every batch."""

    def __init__(self, batch_size: int, n_ctx: int, d_in: int) -> None:
        super().__init__()
        self.tokenizer = None
        self.W_E = torch.zeros(1)  # the store asks it for the device
        self.x = torch.randn(batch_size, n_ctx, d_in, generator=torch.Generator().manual_seed(0))

    def run_with_cache(self, tokens: torch.Tensor, names_filter: list[str], **_: Any) -> tuple[None, dict]:
        return None, {name: self.x[: len(tokens)] for name in names_filter}


def main() -> None:
    """Answer every line on standard input with the seconds of one harvest."""
    warnings.simplefilter("ignore")
    disable_progress_bars()
    job = read_job()
    model = load(job)
    saelens.load_model = lambda **_: model
    Path(job["scratch"]).mkdir(parents=True, exist_ok=True)
    dataset = Dataset.from_parquet(job["tokens"], cache_dir=str(Path(job["scratch"]) / "datasets"))
    say({"ready": True, "n_sequences": len(dataset)})
    for _ in requests():
        say(harvest(job, dataset))


def load(job: dict[str, Any]) -> Any:
    """The model that SAELens would load, or the stub."""
    if job["model"] is None:
        return StubModel(job["batch_size"], job["n_ctx"], job["d_in"])
    # A folder is taken everywhere but in the look-up of the model's official name, which only knows the hub's.
    loading_from_pretrained.get_official_model_name = lambda name: name
    return saelens.load_model(model_class_name=job["model_class"], model_name=job["model"], device="cpu")


def harvest(job: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """One harvest of all hook points: seconds, and the rows and bytes that lie on the disk afterwards."""
    out = Path(job["scratch"]) / "saelens"
    seconds, rows, n_bytes = 0.0, 0, 0
    for hook_point in job["hook_points"]:
        shutil.rmtree(out, ignore_errors=True)
        runner = CacheActivationsRunner(config(job, hook_point, out), override_dataset=dataset)
        started = time.perf_counter()
        cached = runner.run()
        seconds += time.perf_counter() - started
        rows += len(cached) * job["n_ctx"]
        n_bytes += sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        del cached, runner
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # what was written must not be paid for by whoever runs next
    return {"seconds": seconds, "rows": rows, "bytes": n_bytes}


def config(job: dict[str, Any], hook_point: str, out: Path) -> CacheActivationsRunnerConfig:
    """The runner's configuration for exactly the tokens of the data set."""
    # It always fills whole buffers, starting the data set again if need be: the buffer has to divide the tokens.
    bytes_per_row = job["d_in"] * getattr(torch, job["dtype"]).itemsize
    return CacheActivationsRunnerConfig(
        dataset_path="local",
        model_name="local",
        model_batch_size=job["batch_size"],
        hook_name=hook_point,
        d_in=job["d_in"],
        training_tokens=job["n_tokens"],
        context_size=job["n_ctx"],
        new_cached_activations_path=str(out),
        dtype=job["dtype"],
        device="cpu",
        buffer_size_gb=(job["buffer_rows"] + 0.5) * bytes_per_row / 1e9,
        streaming=False,
    )


if __name__ == "__main__":
    main()
