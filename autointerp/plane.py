"""A plane on which latents of similar decoder directions lie near each other: UMAP of decoder rows by cosine.

McInnes et al. 2018, arXiv:1802.03426. Distances across the plane, and the sizes of clusters, mean nothing; `neighbours`
has the cosines themselves.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
from jaxtyping import Float

from autointerp.index.neighbours import directions_of
from sae import checkpoint
from sae.geometry import unit_rows
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index import publish, write_part
from store.run import Run, find_run, start_run

INSTALL = "UMAP is not installed: `pip install 'monosem[umap]'`, and run `monosem plane` again"
FEWEST = 8
"""Latents: with fewer there is no neighbourhood to keep."""


@dataclass(frozen=True, kw_only=True)
class PlaneConfig:
    """How latents are laid out."""

    method: Literal["umap"] = "umap"
    """What lays them out."""
    metric: Literal["cosine"] = "cosine"
    """Of two decoder rows."""
    n_neighbours: int = 15
    """Neighbours whose distances are kept: fewer show finer structure."""
    min_dist: float = 0.1
    """How close two latents may lie, from 0 to 1."""
    seed: int = 0
    """Of the layout, which is the same for the same seed."""

    def __post_init__(self) -> None:
        if self.n_neighbours < 2:
            raise ValueError(f"n_neighbours={self.n_neighbours} keeps nothing: choose n_neighbours >= 2")
        if not 0 <= self.min_dist <= 1:
            raise ValueError(f"min_dist={self.min_dist} is out of range: choose 0 <= min_dist <= 1")


def lay_out(cfg: PlaneConfig, index: Run, root: Path) -> Run:
    """Make `root/plane/<hash>` of the latents that fire, or return the one there is, and publish it in the index.

    Raises:
        UsageError: UMAP is not installed, the index has no dictionary, or hardly any latent fires.
    """
    if "sae" not in index.inputs:
        raise UsageError(f"index {index.id} was made without a dictionary: it has no decoder rows to lay out")
    with start_run(root, "plane", cfg, {"index": index.id}) as run:
        if not run.finished:
            latents, rows = _directions(index)
            places = umap_plane(rows, cfg)
            write_part(run.folder, "plane", {"latent": latents, "x": places[:, 0], "y": places[:, 1]})
            run.finish({"n_latents": len(latents), "umap_version": importlib.import_module("umap").__version__})
        publish(index)
        return run


def umap_plane(rows: Float[np.ndarray, "n d_in"], cfg: PlaneConfig) -> Float[np.ndarray, "n 2"]:
    """Where each direction lies; the same for the same seed.

    Raises:
        UsageError: UMAP is not installed, or there are fewer than eight rows.
    """
    if len(rows) < FEWEST:
        raise UsageError(f"{len(rows)} latents fire, a plane needs {FEWEST}: train the dictionary, or index more text")
    layout = _umap().UMAP(
        n_neighbors=min(cfg.n_neighbours, len(rows) - 1),
        min_dist=cfg.min_dist,
        metric=cfg.metric,
        random_state=cfg.seed,
        n_jobs=1,
    )
    return layout.fit_transform(rows)


def _directions(index: Run) -> tuple[np.ndarray, np.ndarray]:
    """Latents that fire and have a direction, and their decoder rows: dead ones keep what they began with."""
    sae = checkpoint.load(find_run(index.root, index.inputs["sae"], "sae").folder)
    rows = unit_rows(directions_of(sae)["decoder"].cpu()).float().numpy()
    alive = FeatureIndex(index.folder).sql("SELECT latent FROM latents WHERE NOT dead ORDER BY latent")["latent"]
    latents = alive.to_numpy()[np.linalg.norm(rows[alive.to_numpy()], axis=1) > 0]
    return latents, rows[latents]


def _umap() -> ModuleType:
    try:
        return importlib.import_module("umap")
    except ImportError as error:
        raise UsageError(INSTALL) from error
