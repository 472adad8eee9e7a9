"""Harvest: run the model over the text once and keep what it computes at each hook point, as shards.

First documents and sequences are written (`prepare`), then windows of them go through the model (`window`) and to disk
(`shard_writer`). A window's receipt is written last: a harvest that was killed goes on at the first window without one.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from activations.harvest_config import HarvestConfig
from activations.hook_point import expand_hook_points
from activations.keep import Harvest, keep_windows, sample_first_window
from activations.lm import LanguageModel
from activations.models import ModelFiles, find_model, known_hook_names, load_model
from activations.prepare import prepare
from activations.progress import Progress, no_progress
from activations.text import Source, TextConfig, read_sources, sources_hash
from store.errors import DiskFull, UsageError
from store.run import Run, start_run

TEXT_BYTES_PER_TOKEN = 16
"""Of documents and tokens on the disk, about."""


def harvest(cfg: HarvestConfig, root: Path, progress: Progress = no_progress) -> Run:
    """Harvest into `root/activations/<hash>`, or return the run that is already there.

    The hash is over contents: the model's weights, config and tokenizer, the text, and every setting that changes a
    vector. Where the files lie and which device computes do not count.

    Raises:
        UsageError: unknown model, text or hook point; values that the dtype cannot hold; a full disk.
    """
    files = find_model(cfg.model, cfg.revision)
    sources = read_sources(cfg.text)
    known, lm = known_hook_names(files), None
    if known is None:
        lm = _load(cfg)
        known = lm.hook_names()
    names = expand_hook_points(cfg.hook_points, known)
    cfg = dataclasses.replace(cfg, hook_points=names)
    same = request_identity(cfg, files, sources)
    with start_run(root, "activations", {"harvest": cfg}, {}, same) as run:
        if not run.finished:
            _make(run, cfg, lm or _load(cfg), sources, progress)
        return run


def _load(cfg: HarvestConfig) -> LanguageModel:
    return load_model(cfg.model, revision=cfg.revision, device=cfg.device, dtype=cfg.model_dtype)


ELSEWHERE = {
    HarvestConfig: ("model", "revision", "device", "text"),
    TextConfig: ("corpus", "dataset_name", "dataset_split", "dataset_revision"),
}
"""Settings that say where something is found: what is found there is hashed in their place."""


def request_identity(cfg: HarvestConfig, files: ModelFiles, sources: Sequence[Source]) -> dict[str, Any]:
    """What two harvests have in common that are the same."""
    return {
        "model": files.identity,
        "text": sources_hash(sources),
        "settings": _but(cfg, ELSEWHERE[HarvestConfig]) | {"hook_points": sorted(cfg.hook_points)},
        "text_settings": _but(cfg.text, ELSEWHERE[TextConfig]),
    }


def _but(config: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in names}


def _make(run: Run, cfg: HarvestConfig, lm: LanguageModel, sources: Sequence[Source], progress: Progress) -> None:
    if cfg.n_ctx > lm.n_ctx:
        raise UsageError(f"n_ctx={cfg.n_ctx} exceeds the {lm.n_ctx} of {lm.name}: choose less")
    hook_points = tuple(lm.hook_point(name) for name in cfg.hook_points)
    try:
        text = prepare(run.folder, lm.tokenizer, list(sources), cfg.text, cfg.n_ctx, cfg.window_rows, progress)
    except DiskFull as error:
        needed = TEXT_BYTES_PER_TOKEN * cfg.text.n_tokens
        raise UsageError(f"{error}. The text and its tokens need about {needed:,} bytes, before any vector") from error
    job = Harvest.of(run.folder, cfg, lm, hook_points, [window["n_rows"] for window in text["windows"]])
    found, known = keep_windows(job, progress) if cfg.keep_activations == "all" else sample_first_window(job)
    counts = {key: value for key, value in text.items() if key.startswith("n_")}
    about = {
        "n_windows": len(text["windows"]),
        "bos_id": text["bos_id"],
        "heldout_up_to": text["heldout_up_to"],
        "tokenizer": lm.tokenizer.fingerprint,
        "n_layers": lm.n_layers,
        "d_model": lm.d_model,
        "device": lm.device,
    }
    run.finish({**counts, **about, **found}, known)
