"""A dictionary and the activations it is measured on."""

from functools import cached_property

import pyarrow.parquet as pq

from activations.hook_point import HookPoint
from activations.lm import LanguageModel
from activations.models import load_recorded
from activations.reader import Activations
from autointerp.pairing import check_model, check_width, only_hook_point, own_harvest
from sae import checkpoint
from sae.base import SAE
from store import layout
from store.errors import UsageError
from store.hashing import content_hash
from store.run import Run


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
        own = own_harvest(sae_run, activations_run)
        if own is not None:
            check_model(sae_run, activations_run, own)
            _check_held_out(sae_run, activations_run, own)

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


def _check_held_out(sae_run: Run, activations_run: Run, own: Run) -> None:
    """Refuse a harvest that holds out documents which the dictionary was trained on."""
    seen, heldout = _texts(own, "train"), _texts(activations_run, "heldout")
    if shared := len(seen & heldout):
        raise UsageError(
            f"{shared} of {len(heldout)} held-out documents of harvest {activations_run.id} were trained on by SAE "
            f"{sae_run.id}: harvest with the --document-seed and --heldout of {own.id}, or other text"
        )


def _texts(harvest: Run, split: str) -> set[str]:
    """Hashes of a split's documents."""
    tables = (pq.read_table(path, columns=["split", "text"]) for path in layout.document_parts(harvest.folder))
    rows = (row for table in tables for row in table.to_pylist())
    return {content_hash(row["text"]) for row in rows if row["split"] == split}
