"""The null of random directions: each fires on as many tokens as a given latent does, and stands for nothing learnt.

Direction v fires where v·x > θ, with value v·x − θ, and θ is the projection next below the n largest, n being the
latent's own count: it fires n times, less those whose projection is equal to θ. What an explainer and a judge make of
such events is what they make of any rare events of these activations.
The run holds an index like any other, so that all that draws, explains and scores takes it.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save_file
from torch import Tensor

from activations.progress import Progress, no_progress
from activations.reader import Activations, Block
from autointerp.index.config import IndexConfig
from autointerp.index.encode import Codes
from autointerp.index.neighbours import neighbours
from autointerp.index.ranges import Ranges, titles
from autointerp.index.spill import SPILL, Spill, Thinning
from autointerp.pairing import only_hook_point
from store.codes import codes_path, map_codes
from store.errors import UsageError
from store.feature_index import TEXT_FOLDER, FeatureIndex
from store.files import whole_file
from store.index import part_path, publish, write_part
from store.run import Run, find_run, start_run
from store.shards import TOKEN_CLASSES
from store.token_map import TokenMap, write_token_map

DIRECTIONS = "directions.safetensors"
CHUNK_ROWS = 4096
MOST_EVENTS = 20_000_000
"""Events of all directions together: half a gigabyte while they are looked for."""
SAMPLE_BLOCKS, SAMPLE_ROWS = 8, 512
"""Blocks, and rows of each, that stand for the covariance of the activations."""


@dataclass(frozen=True, kw_only=True)
class DirectionsConfig:
    """Which random directions."""

    latents: tuple[int, ...]
    """Direction i fires on as many tokens as latent `latents[i]`."""
    seed: int = 0
    spread: Literal["isotropic", "data"] = "isotropic"
    """`data` draws from a normal distribution with the covariance of a sample of the activations."""


def random_directions(cfg: DirectionsConfig, index_run: Run, root: Path, progress: Progress = no_progress) -> Run:
    """Make and publish `root/directions/<hash>`, go on with one that was killed, or return the one that is there.

    Raises:
        UsageError: the index was imported, or a latent is none, never fires, fires on every token, or they fire too
            often together.
    """
    if "sae" not in index_run.inputs:
        raise UsageError(
            f"index {index_run.id} was imported, and there are no activations to draw directions in: "
            "index a dictionary of your own"
        )
    sae_run = find_run(root, index_run.inputs["sae"], "sae")
    harvest = find_run(root, index_run.inputs["activations"], "activations")
    activations = Activations(harvest, only_hook_point(sae_run, "random directions"))
    with start_run(root, "directions", cfg, {"index": index_run.id, "activations": harvest.id}) as run:
        if not run.finished:
            run.finish(_Directions(run.folder, cfg, FeatureIndex(index_run.folder), activations, progress).make())
        publish(run)
        return run


class Found(NamedTuple):
    """The events of all directions, in order of place and direction."""

    place: np.ndarray
    direction: np.ndarray
    value: np.ndarray


class Largest:
    """The largest values of each of some columns of a long matrix, seen some rows at a time."""

    def __init__(self, n: np.ndarray) -> None:
        """Keep the `n[i]` largest of column i; of equal ones those that were seen first."""
        self.n = n
        self.values = [np.empty(0, np.float32) for _ in n]
        self.places = [np.empty(0, np.int64) for _ in n]
        self._floor = np.full(len(n), -np.inf, np.float32)

    def see(self, values: np.ndarray, places: np.ndarray) -> None:
        """See rows `[n_rows, n_columns]`, at some places."""
        for i, floor in enumerate(self._floor):
            above = np.flatnonzero(values[:, i] > floor)
            if len(above):
                self.values[i] = np.concatenate([self.values[i], values[above, i]])
                self.places[i] = np.concatenate([self.places[i], places[above]])
                if len(self.values[i]) > 2 * self.n[i] + CHUNK_ROWS:
                    self._trim(i)

    def trim(self) -> None:
        """Leave the largest alone, largest first."""
        for i in range(len(self.n)):
            self._trim(i)

    def _trim(self, i: int) -> None:
        n = int(self.n[i])
        order = np.argsort(-self.values[i], kind="stable")[:n]
        self.values[i], self.places[i] = self.values[i][order], self.places[i][order]
        if len(order) == n:
            self._floor[i] = self.values[i][-1]


@dataclass(frozen=True)
class _Directions:
    """What is made of some directions in one harvest, in `folder`."""

    folder: Path
    cfg: DirectionsConfig
    index: FeatureIndex
    activations: Activations
    progress: Progress

    def make(self) -> dict[str, float | int]:
        """Make every file that is not there, and sum up."""
        self._link_text()
        if not part_path(self.folder, "titles").exists():
            write_part(self.folder, "titles", titles(self.activations.run.folder))
        made = IndexConfig(n_near=0)
        work = Ranges(self.folder, made, self.tokens, self._words, self.progress)
        if not work.done():
            self._spill(made)
            work.write()
        if not part_path(self.folder, "neighbours").exists():
            write_part(self.folder, "neighbours", neighbours({"decoder": self.directions}, made.n_neighbours))
        shutil.rmtree(self.folder / SPILL, ignore_errors=True)
        return work.summary()

    @cached_property
    def tokens(self) -> TokenMap:
        return TokenMap(self.folder / TEXT_FOLDER)

    @cached_property
    def blocks(self) -> dict[int, list[Block]]:
        """Of each window."""
        found: dict[int, list[Block]] = {}
        for block in self.activations.blocks:
            found.setdefault(block.window, []).append(block)
        return found

    @cached_property
    def n_fired(self) -> np.ndarray:
        """`[n_directions]` tokens on which the latents fire."""
        rows = self.index.arrow(COUNTS, [list(self.cfg.latents)]).to_pylist()
        known = {row["latent"]: row["n_fired"] for row in rows}
        for latent in self.cfg.latents:
            if latent not in known:
                raise UsageError(f"there is no latent {latent}: choose 0 to {self.index.n_latents - 1}")
            if not known[latent]:
                raise UsageError(f"latent {latent} never fires, and neither would a direction like it: leave it out")
        found = np.array([known[latent] for latent in self.cfg.latents], np.int64)
        if not 0 < found.sum() <= MOST_EVENTS:
            raise UsageError(
                f"{len(found)} latents fire {found.sum()} times, and directions like them are made for 1 to "
                f"{MOST_EVENTS} times together: choose others, or fewer"
            )
        return found

    @cached_property
    def directions(self) -> Float[Tensor, "n_directions d_in"]:
        """Unit vectors."""
        n, random = len(self.cfg.latents), torch.Generator().manual_seed(self.cfg.seed)
        if self.cfg.spread == "isotropic":
            drawn = torch.randn(n, self.activations.d_in, generator=random)
        else:
            # Normal weights on rows less their mean have the rows' covariance, whatever its rank.
            sample = self._sample()
            drawn = torch.randn(n, len(sample), generator=random) @ (sample - sample.mean(dim=0))
        return torch.nn.functional.normalize(drawn, dim=1)

    def _sample(self) -> Tensor:
        windows = sorted(self.blocks)
        chosen = [windows[i] for i in np.unique(np.linspace(0, len(windows) - 1, SAMPLE_BLOCKS).astype(int))]
        return torch.cat([x[:SAMPLE_ROWS] for x, _ in (next(self._rows(window)) for window in chosen)])

    def _rows(self, window: int) -> Iterator[tuple[Tensor, np.ndarray]]:
        """The rows of a window that count, some at a time, and their places."""
        first = int(self.tokens.windows[window])
        counted = map_codes(codes_path(self.index.folder, window)).counted
        for block in self.blocks.get(window, []):
            opened = block.open()
            places = self.tokens.places(opened.columns["seq"], opened.columns["pos"])
            rows = np.flatnonzero(counted[places - first])
            for start in range(0, len(rows), CHUNK_ROWS):
                some = rows[start : start + CHUNK_ROWS]
                yield opened.tensor(some, self.activations.dtype).float(), places[some]

    @torch.inference_mode()
    def _look(self) -> Largest:
        """The pass over the activations, from the last window that was finished."""
        largest, state = Largest(self.n_fired + 1), self.folder / SPILL / "largest.safetensors"
        done = _restore(largest, state) if state.exists() else 0
        windows = range(done, len(self.tokens.windows) - 1)
        for window in self.progress(windows, len(windows), "project on random directions"):
            for x, places in self._rows(window):
                largest.see((x @ self.directions.t()).numpy(), places)
            largest.trim()
            _keep(largest, window + 1, state)
        return largest

    def _found(self) -> Found:
        """What fires, and how strongly."""
        largest = self._look()
        short = [latent for latent, v, n in zip(self.cfg.latents, largest.values, largest.n, strict=True) if len(v) < n]
        if short:
            raise UsageError(f"latent {short[0]} fires on every token, and so would its direction: leave it out")
        thresholds = np.array([values[-1] for values in largest.values], np.float32)
        with whole_file(self.folder / DIRECTIONS) as scratch:
            save_file({"directions": self.directions.numpy(), "thresholds": thresholds}, scratch)
        place = np.concatenate(largest.places)
        direction = np.repeat(np.arange(len(thresholds)), [len(values) for values in largest.values])
        value = np.concatenate(largest.values) - thresholds[direction]
        order = np.lexsort((direction, place))
        order = order[value[order] > 0]
        return Found(place[order], direction[order], value[order])

    def _spill(self, cfg: IndexConfig) -> None:
        """Leave behind what an encoder would."""
        n, spill, found = len(self.cfg.latents), Spill(self.folder), self._found()
        thinning = Thinning(cfg.max_events, cfg.n_top, cfg.seed, len(self.tokens))
        seen = np.zeros(n, np.int64)
        for window, (first, stop) in enumerate(zip(self.tokens.windows, self.tokens.windows[1:], strict=False)):
            own = slice(*np.searchsorted(found.place, [first, stop]).tolist())
            place, direction = found.place[own], found.direction[own]
            counted = np.array(map_codes(codes_path(self.index.folder, window)).counted)
            # Tokens that do not count are not looked at.
            by_class = np.zeros((len(TOKEN_CLASSES), n), np.int64)
            np.add.at(by_class, (self.tokens.text_class[place], direction), 1)
            offsets = np.searchsorted(place, np.arange(first, stop + 1))
            codes = Codes(offsets, direction.astype(np.int32), found.value[own], counted, by_class)
            kept = thinning.kept(codes, self.tokens, int(first), n, seen)
            spill.write(window, codes, kept, None, n)
            seen = kept.seen

    def _link_text(self) -> None:
        """The index's own tokens under a second name; laid out again where the disk has no such names."""
        folder = self.folder / TEXT_FOLDER
        folder.mkdir(exist_ok=True)
        try:
            for path in (self.index.folder / TEXT_FOLDER).iterdir():
                if not (folder / path.name).exists():
                    os.link(path, folder / path.name)
        except OSError:
            write_token_map(folder, self.activations.run.folder)

    def _words(self) -> list[str]:
        """The text of every token, as it first stands in the harvest."""
        ids, first = np.unique(self.tokens.token_ids, return_index=True)
        words = [""] * (int(ids.max()) + 1)
        for token_id, place in zip(ids.tolist(), first.tolist(), strict=True):
            words[token_id] = self.tokens.texts(place, place + 1)[0]
        return words


def _keep(largest: Largest, n_windows: int, file: Path) -> None:
    """Write down what was found in the first windows."""
    bounds = np.cumsum([0, *(len(values) for values in largest.values)])
    arrays = {
        "n_windows": np.array([n_windows]),
        "bounds": bounds,
        "values": np.concatenate(largest.values),
        "places": np.concatenate(largest.places),
    }
    with whole_file(file) as scratch:
        save_file(arrays, scratch)


def _restore(largest: Largest, file: Path) -> int:
    """Go on from what was written down; how many windows that is of."""
    arrays = load_file(file)
    for i, (start, stop) in enumerate(zip(arrays["bounds"], arrays["bounds"][1:], strict=False)):
        largest.values[i], largest.places[i] = arrays["values"][start:stop], arrays["places"][start:stop]
    largest.trim()
    return int(arrays["n_windows"][0])


COUNTS = "SELECT latent, n_fired FROM latents WHERE latent IN (SELECT unnest(?::BIGINT[]))"
