"""Dictionaries that can be laid side by side: finished ones, and the steps of a training whose dictionary was kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.trainings import kept_folder, kept_steps
from store.run import Run, list_runs, unfinished_runs

SETTINGS = ("k", "target_l0", "l1_coefficient", "levels")
"""What sets a variant's sparsity."""


@dataclass(frozen=True)
class Dictionary:
    """A dictionary on disk."""

    run: Run
    step: int | None = None
    """Of the training, where it is not what the training ended with."""

    @property
    def ref(self) -> str:
        """In a URL: the run's id, and behind @ the step."""
        return self.run.id if self.step is None else f"{self.run.id}@{self.step}"

    @property
    def folder(self) -> Path:
        """Of its checkpoint."""
        return self.run.folder if self.step is None else kept_folder(self.run.folder, self.step)

    @property
    def title(self) -> str:
        """A few words: variant, width, what its sparsity is set by, hook point, id and step."""
        config = self.run.config
        # of what another library trained only the widths are sure: other settings may be defaults that nobody chose
        sae = {} if "origin" in config else config.get("sae", {})
        width = self.run.results.get("d_sae") or config.get("sae", {}).get("d_sae")
        told = [f"{key}={sae[key]}" for key in SETTINGS if sae.get(key)]
        at = f", step {self.step:,}" if self.step is not None else ""
        words = [config.get("variant", "sae"), width, *told, self.hook_point, f"({self.run.id[:8]}{at})"]
        return " ".join(str(word) for word in words if word)

    @property
    def hook_point(self) -> str:
        """Where it reads the model; of one that reads several places, the first."""
        return self.run.config.get("hook_point", "")

    @property
    def places(self) -> tuple[str, ...]:
        """All hook points it reads or writes."""
        return (self.hook_point, *self.run.config.get("other_hook_points", ()))


def dictionaries(root: Path) -> dict[str, Dictionary]:
    """All under `root` by `ref`, the newest first; steps stand before what their training ended with."""
    found = []
    for run in list_runs(root, "sae"):
        found += [Dictionary(run), *(Dictionary(run, step) for step in kept_steps(run))]
    for run in unfinished_runs(root, "sae"):
        found += [Dictionary(run, step) for step in kept_steps(run)]
    return {one.ref: one for one in reversed(found)}


def first_two(found: Mapping[str, Dictionary]) -> tuple[str, str]:
    """What is compared where nothing is asked for: the newest finished dictionary, and before it the newest other one
    of its hook point, or else of any."""
    whole = [one for one in found.values() if one.step is None] or list(found.values())
    b = whole[0]
    others = [one for one in whole[1:] or list(found.values()) if one.ref != b.ref]
    alike = [one for one in others if one.places == b.places]
    a = (alike or others or [b])[0]
    return a.ref, b.ref


def why_no_cosine(a: Dictionary, b: Dictionary, models: Mapping[str, Any]) -> str:
    """Why cosines of two dictionaries' directions say nothing; empty where they do.

    Args:
        a: one dictionary.
        b: another.
        models: what identifies the model of each harvest, by its id, as far as it is known.
    """
    from activations.hook_point import NAME, RESIDUAL_SITES

    known = [[models.get(harvest) for harvest in _harvests(one)] for one in (a, b)]
    if _harvests(a) != _harvests(b) and any(model is None for of_one in known for model in of_one):
        return "a harvest they were trained on is not there any more, so whether they are of one model is not known"
    if known[0] != known[1]:
        return "they are of different models, whose coordinates have nothing to do with each other"
    sites = [match["site"] for one in (a, b) if (match := NAME.match(one.hook_point)) and len(one.places) == 1]
    both_residual = len(sites) == 2 and all(site in RESIDUAL_SITES for site in sites)
    if a.places != b.places and not both_residual:
        return f"{' and '.join(a.places)}, and {' and '.join(b.places)}, are not coordinates of the same space"
    return ""


def models_of(root: Path) -> dict[str, Any]:
    """What identifies the model of each harvest, by the harvest's id."""
    return {
        run.id: run.same.get("model", run.config.get("harvest", {}).get("model"))
        for run in list_runs(root, "activations")
    }


def _harvests(one: Dictionary) -> list[str]:
    """Those it was trained on, a crosscoder's in their order."""
    return [id_ for kind, id_ in one.run.inputs.items() if kind.startswith("activations")]
