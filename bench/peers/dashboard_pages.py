"""SAEDashboard as a worker: one line in, the pages of some feature batches made and timed, one line out.

Runs in bench/peers/.venv, which has none of the project's code. Model and SAE are loaded before the clock starts, and
the model's activations lie in its own cache, so that no forward pass is timed either. Settings are those with which it
makes Neuronpedia's pages. `fold_W_dec_norm`, which it calls and SAELens refuses for TopK, does nothing: decoder rows
have norm 1.
"""

import os
import time
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TQDM_DISABLE", "1")

import no_matplotlib  # noqa: F401 - before SAEDashboard, which imports the real one
import pyarrow.parquet as pq
import torch
from answers import read_job, requests, say
from sae_dashboard.components_config import (
    ActsHistogramConfig,
    Column,
    FeatureTablesConfig,
    LogitsHistogramConfig,
    LogitsTableConfig,
    SequencesConfig,
)
from sae_dashboard.feature_data import FeatureData
from sae_dashboard.layout import SaeVisLayoutConfig
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE, HookedSAETransformer
from transformer_lens import loading_from_pretrained

N_TOP = 20


def main() -> None:
    """Make the pages of the features that each request names."""
    warnings.simplefilter("ignore")
    job = read_job()
    loading_from_pretrained.get_official_model_name = lambda name: name
    model = HookedSAETransformer.from_pretrained_no_processing(job["model"], device="cpu")
    sae = SAE.load_from_disk(job["sae"])
    sae.fold_W_dec_norm = lambda: None
    tokens = torch.tensor(pq.read_table(job["tokens"]).column("input_ids").to_pylist())
    say({"ready": True})
    for request in requests():
        runner = SaeVisRunner(config(job, request["features"]))
        started = time.perf_counter()
        made = runner.run(encoder=sae, model=model, tokens=tokens)
        seconds = time.perf_counter() - started
        top = {number: strongest(made.feature_data_dict[number]) for number in request.get("sample", [])}
        say({"seconds": seconds, "n_pages": len(made.feature_data_dict), "top": top})


def config(job: dict[str, Any], features: list[int]) -> SaeVisConfig:
    """As `neuronpedia_runner.py` has it, 128 features and 32 prompts at a time."""
    sequences = SequencesConfig(
        stack_mode="stack-all",
        buffer=None,
        compute_buffer=True,
        n_quantiles=5,
        top_acts_group_size=N_TOP,
        quantile_group_size=5,
    )
    shown = (ActsHistogramConfig(), LogitsHistogramConfig(), LogitsTableConfig(), FeatureTablesConfig(n_rows=3))
    return SaeVisConfig(
        hook_point=job["hook_point"],
        features=features,
        minibatch_size_features=job["n_features_at_a_time"],
        minibatch_size_tokens=job["n_prompts_at_a_time"],
        quantile_feature_batch_size=64,
        device="cpu",
        feature_centric_layout=SaeVisLayoutConfig(columns=[Column(sequences, *shown)]),
        ignore_positions=[0],
        cache_dir=Path(job["cache"]),
    )


def strongest(page: FeatureData) -> list[tuple[int, int, float]]:
    """Prompt, position and value of the windows of its first group that are active at all."""
    found = []
    for shown in page.sequence_data.seq_group_data[0].seq_data:
        at = shown.qualifying_token_index
        value = shown.feat_acts[at - 1] if at else 0.0  # the first position is ignored, and not shown
        if value > 0:
            found.append((shown.original_index, at, value))
    return found


if __name__ == "__main__":
    main()
