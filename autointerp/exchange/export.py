"""What is exported: some latents of an index, and what others call its model and its dictionary."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.run import find_run

LAYER = re.compile(r"(?:blocks|layers|h)\.(\d+)(?:\.|$)")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What may be part of a path in somebody else's store."""
RANGE = re.compile(r"\s*(\d{1,10})\s*(?:-\s*(\d{1,10})\s*)?")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What an export is called elsewhere, where that is not as here."""

    model_name: str | None = None
    """The model, as the other tool calls it: `gpt2-small` at Neuronpedia, a hub id for delphi."""
    sae_id: str | None = None
    """The dictionary, as Neuronpedia and SAELens call it: LAYER-SET, such as `6-res-jb`."""
    hook_point: str | None = None
    """The hook point, as delphi calls it: the name of the folder its cache lies in."""
    ctx: int | None = None
    """Tokens in a row of delphi's cache: longer sequences are split, shorter ones padded. By default the longest
    sequence has room, rounded up to a multiple of 32, which is as long as delphi's examples are."""
    creator: str = "clkht01d40000jv08hvalcvly"
    """The id of the Neuronpedia user to whom everything is attributed; by default that of Neuronpedia's own scripts."""
    name: str = "monosem"
    """Of a list of features."""


class Origin(NamedTuple):
    """Where an index's activations are from."""

    model: str
    hook_point: str


@dataclass(frozen=True)
class Export:
    """Some latents of an index on their way out."""

    index: FeatureIndex
    latents: np.ndarray
    """`[n]` int64, ascending, each once."""
    cfg: ExportConfig

    @cached_property
    def origin(self) -> Origin:
        """The model's reference and the hook point.

        Raises:
            UsageError: the run that says so is no longer there.
        """
        harvest, inputs = self.index.harvest, self.index.run.inputs
        if "sae" not in inputs:
            return Origin(harvest.config["model"], harvest.config["hook_point"])
        hook_point = find_run(self.index.run.root, inputs["sae"], "sae").config["hook_point"]
        return Origin(harvest.config["harvest"]["model"], hook_point)

    @property
    def model_id(self) -> str:
        """The model's name without where it is from, fit for a path."""
        return fit(self.cfg.model_name or re.split(r"[:/\\]", self.origin.model.rstrip("/"))[-1], "--model-name")

    @property
    def sae_id(self) -> str:
        """LAYER-SET.

        Raises:
            UsageError: none was given, and the hook point names no layer.
        """
        if self.cfg.sae_id is not None:
            if not re.match(r"\d+-.", self.cfg.sae_id):
                raise UsageError(f"sae_id '{self.cfg.sae_id}' is not LAYER-SET: give one such as 6-res-jb")
            return fit(self.cfg.sae_id, "--sae-id")
        layer = LAYER.search(self.origin.hook_point)
        if layer is None:
            raise UsageError(f"hook point {self.origin.hook_point} names no layer: give --sae-id LAYER-SET")
        return f"{layer[1]}-monosem-{self.index.run.id[:8]}"

    @property
    def hook_point(self) -> str:
        """As a folder's name."""
        return fit(self.cfg.hook_point or self.origin.hook_point, "--hook-point")


def fit(name: str, option: str) -> str:
    """`name`, if it can be one part of a path.

    Raises:
        UsageError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"'{name}' cannot be a name there: give letters, digits, dots and dashes with {option}")
    return name


def choose(index: FeatureIndex, latents: str | None = None, where: str | None = None) -> np.ndarray:
    """`[n]` int64, ascending: the latents that are asked for; all of them where nothing is.

    Args:
        index: whose latents.
        latents: numbers and ranges, such as `1,2,5-9`.
        where: SQL over the columns of `features`.

    Raises:
        UsageError: both are given, or what is given cannot be read, is out of range, or chooses none.
    """
    if latents is not None and where is not None:
        raise UsageError("--latents and --where both say which latents: give one of them")
    if latents is not None:
        return _listed(latents, index.n_latents)
    if where is None:
        return np.arange(index.n_latents)
    # A line end, so that a comment in the condition cannot swallow what follows it.
    found = index.arrow(f"SELECT latent FROM features WHERE ({where}\n) ORDER BY latent").column("latent")
    if not len(found):
        raise UsageError(f"no latent satisfies '{where}': ask `monosem sql` what there is")
    return found.to_numpy().astype(np.int64)


def _listed(latents: str, n_latents: int) -> np.ndarray:
    chosen: set[int] = set()
    for part in latents.split(","):
        found = RANGE.fullmatch(part)
        if found is None:
            raise UsageError(f"latents '{latents}': '{part}' is no number or range: give numbers such as 1,2,5-9")
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last:
            raise UsageError(f"latents '{latents}': the range {part.strip()} runs backwards: give {last}-{first}")
        if last >= n_latents:
            raise UsageError(
                f"latent {last} is out of range: this index has latents 0 to {n_latents - 1}, choose those"
            )
        chosen.update(range(first, last + 1))
    return np.array(sorted(chosen), np.int64)
