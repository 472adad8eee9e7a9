"""A dictionary and the activations it is measured on."""

from functools import cached_property

from activations.hook_point import HookPoint
from activations.lm import LanguageModel
from activations.models import load_recorded
from activations.reader import Activations
from autointerp.index import check_width, only_hook_point
from sae import checkpoint
from sae.base import SAE
from store.errors import UsageError
from store.run import Run, find_run


class NotApplicable(UsageError):
    """A part has nothing to say of a dictionary; the message says why, and is shown in the report."""


class Subject:
    """A dictionary at one hook point, with the harvest it is measured on; whatever is heavy is loaded on first use."""

    def __init__(self, sae_run: Run, activations_run: Run) -> None:
        """Open both.

        Raises:
            UsageError: the dictionary reads several hook points, or one that the harvest does not have, or another
                width, or it was trained on another model.
        """
        self.sae_run, self.activations_run = sae_run, activations_run
        self.activations = Activations(activations_run, only_hook_point(sae_run, "evaluate"))
        self.sae: SAE = checkpoint.load(sae_run.folder)
        check_width(self.sae, self.activations)
        _check_model(sae_run, activations_run)

    @property
    def name(self) -> str:
        """The dictionary's id."""
        return self.sae_run.id

    @property
    def run_classes(self) -> tuple[str, ...]:
        """Token classes it was trained on."""
        return tuple(self.sae_run.config.get("classes", ("normal",)))

    @cached_property
    def lm(self) -> LanguageModel:
        """The model that was harvested."""
        return load_recorded(self.activations_run)

    @cached_property
    def hook_point(self) -> HookPoint:
        """Where in it."""
        return self.lm.hook_point(self.activations.hook_point)


def _check_model(sae_run: Run, activations_run: Run) -> None:
    """Refuse a harvest of another model than the dictionary's own harvest, where that can still be looked at."""
    trained_on = sae_run.inputs.get("activations", activations_run.id)
    if trained_on == activations_run.id or not (sae_run.root / "activations" / trained_on).exists():
        return
    own = find_run(sae_run.root, trained_on, "activations")
    if own.same.get("model") != activations_run.same.get("model"):
        names = [run.config["harvest"]["model"] for run in (own, activations_run)]
        raise UsageError(
            f"SAE {sae_run.id} was trained on another model ({names[0]}, harvest {own.id}) than harvest "
            f"{activations_run.id} is of ({names[1]}): evaluate it on a harvest of its own model"
        )
